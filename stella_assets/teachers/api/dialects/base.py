"""What every dialect is: settings of a service, the requests that it takes, and the answers that it gives."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from stella_assets.core.config import ConfigModel, Dimension
from stella_assets.core.registry import Registry
from stella_assets.teachers.api.answers import Parsed
from stella_assets.teachers.api.limits import Limits

COMMON_LIMITS = Limits(items=512, concurrency=16, timeout=120.0)
"""Larger requests save nothing where tokens are what is limited, and a killed run pays for them again."""


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
    """

    message: str
    code: str = ""
    param: str = ""


class Dialect(ConfigModel):
    """Settings that every service has.

    A dialect is a subclass with a field `dialect: Literal["..."]`, registered with `DIALECTS`. It must define
    `request` and `parse`; the other methods fit most services.
    """

    input_types: ClassVar[Mapping[str, str]] = {}
    """What the service calls the roles `query` and `document`."""
    exhausted: ClassVar[frozenset[str]] = frozenset({"insufficient_quota"})
    """Codes of errors with status 429 that waiting does not mend."""
    unhashed: ClassVar[frozenset[str]] = frozenset()
    """Settings that do not change vectors."""

    dialect: str = Field(description="which of the dialects below")
    model: str = Field(min_length=1, description="the service's name of the model")
    base_url: str = Field(description="what the paths of requests are appended to")
    dimensions: Dimension | None = Field(
        default=None, description="dimensions to ask for; the model's own where not given"
    )
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
        except ValueError as error:
            raise ValueError(f"{url:.100}: not an address ({error})") from None
        if parts.scheme not in ("http", "https") or not host:
            raise ValueError(f"{url:.100}: not an address that begins with http:// or https://")
        # It is part of fingerprints and messages, so nothing secret may be in it.
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("an address has no user, password or `?`; keys are read from the environment")
        return url.rstrip("/")

    def limits(self) -> Limits:
        """What the service takes, as far as its documentation says."""
        return COMMON_LIMITS

    def dim(self) -> int | None:
        """Dimensions of its vectors; None where only an answer can say."""
        return self.dimensions

    def input_type(self, role: str) -> str | None:
        """What the service calls a role; None for a role that is a prompt itself."""
        return self.input_types.get(role)

    def identity(self, role: str) -> dict[str, Any]:
        """All that its vectors depend on in addition to the text: no key, and not how numbers are written.

        Args:
            role: `query`, `document`, or a prompt.

        Returns:
            Plain values.
        """
        settings = self.settings("base_url", "server", *self.unhashed)
        server = self.server or self.base_url.split("://", 1)[1]
        input_type = self.input_type(role)
        return {**settings, "server": server, "input_type": input_type, "output_dtype": "float", "normalised": "client"}

    def authorise(self, key: str) -> dict[str, str]:
        """The headers that carry the key."""
        return {"Authorization": f"Bearer {key}"}

    @abstractmethod
    def request(self, texts: Sequence[str], role: str) -> Request:
        """The request for the vectors of texts.

        Args:
            texts: With their prompts.
            role: `query`, `document`, or a prompt.
        """

    @abstractmethod
    def parse(self, answer: Any, count: int) -> Parsed:
        """The vectors in an answer.

        Args:
            answer: The body of an answer with status 200, as plain values.
            count: Texts of the request.

        Raises:
            AnswerError: Not one vector for each text.
            KeyError, IndexError, TypeError, AttributeError: It has another form.
        """

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


DIALECTS: Registry[Dialect] = Registry("dialect", key="dialect")
