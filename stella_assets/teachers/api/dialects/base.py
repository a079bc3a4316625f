"""What every dialect is: settings of a service, the requests that it takes, and the answers that it gives."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from stella_assets.core.config import ConfigModel, Dimension
from stella_assets.core.registry import Registry
from stella_assets.teachers.api.answers import Parsed
from stella_assets.teachers.api.count import BOUND, Counter
from stella_assets.teachers.api.errors import AnswerError
from stella_assets.teachers.api.limits import Limits
from stella_assets.teachers.api.prices import Published, published

BATCH_URL = "/v1/embeddings"
"""What batches ask; of the provider's own address, whatever `base_url` is."""
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
        wait: Seconds that the body asks to wait; None where it does not say.
    """

    message: str
    code: str = ""
    param: str = ""
    wait: float | None = None


@dataclass(frozen=True)
class BatchForm:
    """What a provider's batch API takes, at a lower price and within hours.

    Attributes:
        requests: Of a batch.
        texts: Of all its requests.
        bytes: Of its file.
        window: Within which it answers, in the provider's words.
    """

    requests: int
    texts: int
    bytes: int
    window: str


class Dialect(ConfigModel):
    """Settings that every service has.

    A dialect is a subclass with a field `dialect: Literal["..."]`, registered with `DIALECTS`. It must define
    `request` and `parse`; the other methods fit most services.
    """

    exhausted: ClassVar[frozenset[str]] = frozenset(
        {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
    )
    """Codes of errors that neither waiting nor other texts mend."""
    unhashed: ClassVar[frozenset[str]] = frozenset()
    """Settings that do not change vectors."""
    batch_form: ClassVar[BatchForm | None] = None
    """None for a service without a batch API."""

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

    def published(self) -> Published | None:
        """What the provider publishes of the model; None at an address that is not the provider's."""
        if self.base_url != type(self).model_fields["base_url"].default:
            return None
        return published(self.dialect, self.model)

    def limits(self) -> Limits:
        """What the service takes, as far as its documentation says."""
        facts = self.published()
        return COMMON_LIMITS if facts is None else facts.limits.over(COMMON_LIMITS)

    def dim(self) -> int | None:
        """Dimensions of its vectors; None where only an answer can say."""
        facts = self.published()
        return self.dimensions or (None if facts is None else facts.dimensions)

    def counter(self) -> Counter:
        """How tokens are counted before a request is sent."""
        return BOUND

    def input_type(self, role: str) -> str | None:
        """What the service calls a role; None where it is not told."""
        del role
        return None

    def identity(self, role: str) -> dict[str, Any]:
        """All that its vectors depend on in addition to the text: no key, and not how numbers are written.

        Args:
            role: `query`, `document`, or a prompt.

        Returns:
            Plain values.
        """
        settings = self.settings("base_url", "server", "input_types", *self.unhashed)
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

    def batch_line(self, name: str, request: Request) -> dict[str, Any]:
        """A request as a line of a batch's file; of dialects with a `batch_form`.

        Args:
            name: By which its answer is found.
            request: What `request` returned.
        """
        return {"custom_id": name, "method": "POST", "url": BATCH_URL, "body": request.body}

    def batch_order(self, file: str, request: Request) -> dict[str, Any]:
        """What a batch is begun with.

        Args:
            file: The service's name of the file.
            request: Any one of the batch, as all have the same settings.
        """
        del request
        window = self.batch_form.window if self.batch_form else ""
        return {"input_file_id": file, "endpoint": BATCH_URL, "completion_window": window}

    @abstractmethod
    def parse(self, answer: Any, count: int) -> Parsed:
        """The vectors in an answer; `read` calls it.

        Args:
            answer: The body of an answer with status 200, as plain values.
            count: Texts of the request.

        Raises:
            AnswerError: Not one vector for each text.
            KeyError, IndexError, TypeError, AttributeError: It has another form.
        """

    def read(self, answer: Any, count: int) -> Parsed:
        """What `parse` gives.

        Raises:
            AnswerError: Not one vector for each text, or the answer has another form.
        """
        try:
            return self.parse(answer, count)
        except (KeyError, IndexError, TypeError, AttributeError):
            raise AnswerError("it has no vectors where its documentation says") from None

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


class RoleDialect(Dialect):
    """What dialects share that tell the service what a text is for. It changes vectors, so it is in the fingerprint."""

    known_types: ClassVar[frozenset[str]] = frozenset()
    """What the service has words for; empty where any word may be."""
    usual_types: ClassVar[Mapping[str, str]] = {}
    """Its words for the roles `query` and `document`."""

    input_types: dict[str, str | None] = Field(
        default={}, description="the service's words for the roles `query` and `document`; null to say nothing"
    )

    @model_validator(mode="after")
    def _require_known_types(self) -> Self:
        for role, word in self.input_types.items():
            if role not in ("query", "document"):
                raise ValueError(f"input_types has {role!r}, and roles are `query` and `document`")
            if word is not None and self.known_types and word not in self.known_types:
                raise ValueError(f"input_types: {word!r} is not one of {', '.join(sorted(self.known_types))}")
        return self

    def input_type(self, role: str) -> str | None:
        """The service's word for a role; None for a role that is a prompt itself."""
        return {**self.usual_types, **self.input_types}.get(role)


DIALECTS: Registry[Dialect] = Registry("dialect", key="dialect")
