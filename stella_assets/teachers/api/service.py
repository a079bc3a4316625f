"""What every service is that is asked over HTTP: where it is, what it takes, and how its errors look."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

import numpy as np
from pydantic import Field, field_validator, model_validator

from stella_assets.core.config import ConfigModel
from stella_assets.core.secrets import holds_key
from stella_assets.teachers.api.answers import Parsed, unit_vectors
from stella_assets.teachers.api.count import BOUND, Counter
from stella_assets.teachers.api.errors import AnswerError
from stella_assets.teachers.api.limits import Limits
from stella_assets.teachers.api.prices import Published, published

COMMON_LIMITS = Limits(items=512, concurrency=16, timeout=120.0)
"""Larger requests save nothing where tokens are what is limited, and a killed run pays for them again."""
NO_ADDRESS = "not an address, which begins with http:// or https://, and has a host, no password and no spaces"
LONGEST_ADDRESS = 2048
"""Characters; many servers and proxies refuse more."""


@dataclass(frozen=True)
class Request:
    """One request, without the key.

    Attributes:
        path: Is appended to `base_url`.
        body: Sent as JSON.
        headers: In addition to those of every request.
    """

    path: str
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """What an answer with an error says.

    Attributes:
        message: The service's words.
        code: Its name of the error; empty where it has none.
        param: The part of the request that is wrong; empty where it does not say.
        wait: Seconds that the body asks to wait; None where it does not say.
    """

    message: str
    code: str = ""
    param: str = ""
    wait: float | None = None


class Service(ConfigModel):
    """Settings that every service has, and how it is asked about texts: it must define `request` and `parse`."""

    exhausted: ClassVar[frozenset[str]] = frozenset(
        {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
    )
    """Codes of errors that neither waiting nor other texts mend."""
    unhashed: ClassVar[frozenset[str]] = frozenset()
    """Settings that do not change answers."""
    gives: ClassVar[str] = "vectors"
    """What it answers, in the plural."""
    bills: ClassVar[str] = "tokens"
    """What its prices are for a million of."""

    dialect: str = Field(description="which of the dialects below")
    model: str = Field(pattern=r"^\S(.*\S)?$", description="the service's name of the model")
    base_url: str = Field(description="what the paths of requests are appended to")
    server: str | None = Field(
        default=None,
        min_length=1,
        description="stands for `base_url` in the fingerprint, for a server of your own whose address changes",
    )

    @field_validator("base_url")
    @classmethod
    def _require_plain_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise ValueError(NO_ADDRESS) from None
        # It is part of fingerprints and messages, so nothing secret may be in it.
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError(
                "an address has no user, password, `?` or `#`, and is not shown here, as it may hold a key; keys are "
                "read from the environment, by the name that `key` gives"
            )
        if len(url) > LONGEST_ADDRESS:
            raise ValueError(f"an address of {len(url):,} characters; {LONGEST_ADDRESS:,} are allowed")
        if parts.scheme not in ("http", "https") or not host or " " in url or not url.isprintable():
            raise ValueError(NO_ADDRESS)
        return url.rstrip("/")

    @model_validator(mode="after")
    def _refuse_endpoints(self) -> Self:
        path = self.request([""], "document").path.partition("?")[0]
        if self.base_url.endswith(path):
            raise ValueError(f"base_url: leave out {path!r} at its end, which is appended to it")
        return self

    @model_validator(mode="after")
    def _refuse_keys(self) -> Self:
        for name, value in self.model_dump(mode="json").items():
            if holds_key(value):
                raise ValueError(
                    f"{name}: has what looks like a key of a service, so it is not shown here; keys are read from the "
                    "environment, by the name that `key` gives"
                )
        return self

    def published(self) -> Published | None:
        """What the provider publishes of the model; None at an address that is not the provider's."""
        if self.base_url != type(self).model_fields["base_url"].default:
            return None
        return published(self.price_list(), self.model_name())

    def model_name(self) -> str:
        """The model's name in `prices.yaml`."""
        return self.model

    def price_list(self) -> str:
        """Where its prices stand in `prices.yaml`."""
        return self.dialect

    def limits(self) -> Limits:
        """What the service takes, as far as its documentation says."""
        facts = self.published()
        return COMMON_LIMITS if facts is None else facts.limits.over(COMMON_LIMITS)

    def dim(self) -> int | None:
        """Numbers of an answer about one text; None where only an answer can say."""
        return None

    def counter(self) -> Counter:
        """How tokens are counted before a request is sent."""
        return BOUND

    def counted(self, text: str, role: str) -> str:
        """What a service bills for a text: more than the text where something else is sent with each."""
        del role
        return text

    def bound(self, tokens: Sequence[int]) -> int:
        """An upper bound of what a request is billed.

        Args:
            tokens: Of each of its texts, an upper bound.
        """
        return sum(tokens)

    def authorise(self, key: str) -> dict[str, str]:
        """The headers that carry the key."""
        return {"Authorization": f"Bearer {key}"}

    @abstractmethod
    def request(self, texts: Sequence[str], role: str) -> Request:
        """The request about texts.

        Args:
            texts: With their prompts.
            role: What they have in common: `query`, `document` or a prompt for vectors, the query for scores.
        """

    @abstractmethod
    def parse(self, answer: Any, count: int) -> Parsed:
        """What is in an answer; `read` calls it.

        Args:
            answer: The body of an answer with status 200, as plain values.
            count: Texts of the request.

        Raises:
            AnswerError: Not one vector for each text.
            KeyError, IndexError, TypeError, AttributeError, ValueError: It has another form.
        """

    def read(self, answer: Any, count: int) -> Parsed:
        """What `parse` gives.

        Raises:
            AnswerError: Not one vector for each text, or the answer has another form.
        """
        try:
            return self.parse(answer, count)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError):
            raise AnswerError(f"it has no {self.gives} where its documentation says") from None

    def accept(self, vectors: np.ndarray, dim: int | None) -> np.ndarray:
        """What is kept of an answer.

        Args:
            vectors: `[n, dim]` as the service gave them.
            dim: What they must have; None where nobody knows yet.

        Returns:
            Vectors of unit norm, here.

        Raises:
            AnswerError: They cannot be used.
        """
        return unit_vectors(vectors, dim)

    def problem(self, body: Any) -> Problem:
        """What the body of an error says.

        Args:
            body: Plain values; the text itself where it is not JSON.
        """
        if not isinstance(body, Mapping):
            return Problem(str(body))
        error = body.get("error", body)
        if not isinstance(error, Mapping):
            return Problem(str(error))
        message = error.get("message") or error.get("detail") or error
        return Problem(str(message), str(error.get("code") or ""), str(error.get("param") or ""))

    def is_exhausted(self, problem: Problem) -> bool:
        """Whether an error with status 429 says that the account has no more, so that waiting does not mend it."""
        return problem.code in self.exhausted
