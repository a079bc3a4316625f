"""What every dialect is: settings of a service, the requests that it takes, and the answers that it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from stella_assets.core.config import Dimension
from stella_assets.core.registry import Registry
from stella_assets.teachers.api.service import Request, Service

BATCH_URL = "/v1/embeddings"
"""What batches ask; of the provider's own address, whatever `base_url` is."""


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


class Dialect(Service):
    """Settings that every service of vectors has.

    A dialect is a subclass with a field `dialect: Literal["..."]`, registered with `DIALECTS`. It must define
    `request` and `parse`; the other methods fit most services.
    """

    batch_form: ClassVar[BatchForm | None] = None
    """None for a service without a batch API."""

    dimensions: Dimension | None = Field(
        default=None, description="dimensions to ask for; the model's own where not given"
    )

    @model_validator(mode="after")
    def _require_offered_dimensions(self) -> Self:
        self.require_offered("dimensions", self.dimensions)
        return self

    def require_offered(self, setting: str, dimensions: int | None) -> None:
        """Make sure that the model has vectors of so many dimensions, as far as the provider publishes it.

        Args:
            setting: Where the number is stated.
            dimensions: None where it is not stated.

        Raises:
            ValueError: The model has no such vectors.
        """
        facts = self.published()
        if facts and dimensions and (offered := facts.instead_of(dimensions)):
            raise ValueError(
                f"{setting} {dimensions}: not offered by {self.model}, as published on {facts.read_on}; "
                f"use one of {offered}, or leave it out"
            )

    def dim(self) -> int | None:
        """Dimensions of its vectors; None where only an answer can say."""
        facts = self.published()
        return self.dimensions or (None if facts is None else facts.dimensions)

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
