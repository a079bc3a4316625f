"""The teacher kind `api`: a model that others run, which is asked over HTTP, and whose answers are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self
from urllib.parse import quote

import numpy as np
from pydantic import Field, model_validator

from stella_assets.core.config import ConfigModel, Dimension, Positive
from stella_assets.core.devices import Compute
from stella_assets.core.errors import UserError
from stella_assets.core.services import Services
from stella_assets.corpus.read import CorpusTexts
from stella_assets.storage.canonical import digest
from stella_assets.storage.keyed_table import KeyedTable
from stella_assets.storage.keys import Keys
from stella_assets.teachers.api.count import BOUND, EXTRA_TOKENS
from stella_assets.teachers.api.dialects import DIALECTS
from stella_assets.teachers.api.settings import AskingConfig
from stella_assets.teachers.forecast import Forecast
from stella_assets.teachers.kinds.base import TEACHERS, Role, TeacherConfig, Wanted
from stella_assets.teachers.terms import Terms

if TYPE_CHECKING:
    from stella_assets.teachers.api.model import ApiModel

URL = ":/?#&=+,;~%@!$"
"""Characters that an address may have, besides letters and digits, and that are nothing to Markdown in one."""


class RolePrompts(ConfigModel):
    """What is put before a text, where the service does not do it."""

    query: str = Field("", description="before a query")
    document: str = Field("", description="before a document")


@TEACHERS.register
class ApiTeacher(TeacherConfig, AskingConfig):
    """A model of a provider, or of a server of your own, that is asked over HTTP.

    Its answers are observations: each is kept in a journal before anything else happens, is never paid twice, and is
    never removed. See [api_teachers.md](api_teachers.md).

    Example:
        >>> ApiTeacher(kind="api", name="large", licence="proprietary", service=service, key="OPENAI_API_KEY",
        ...            terms=terms).open(Path(), compute).encode(["one text"], "document").shape
        (1, 3072)
    """

    icons: ClassVar[frozenset[str]] = frozenset({"api"})
    paid: ClassVar[bool] = True

    kind: Literal["api"]
    # Half of the others': answers are kept as they come, so nothing is won by larger units but memory is lost.
    unit_rows: Positive = Field(16_384, le=262_144, description="rows embedded between two commits")
    service: DIALECTS.union() = Field(description="how it is asked, and for which model: see the dialects")  # type: ignore[valid-type]
    prompts: RolePrompts = Field(
        RolePrompts(query="", document=""), description="put before texts, where the service does not do it"
    )
    dim: Dimension | None = Field(None, description="dimensions of its vectors, where nothing else says them")
    delivery: Literal["online", "batch"] = Field(
        "online",
        description="`batch`: by the provider's batch API, which takes hours and costs less; of `openai` and `voyage`",
    )
    trusted: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="why vectors that were imported without a check are believed; they are of a teacher of their own",
        exclude_if=lambda reason: reason is None,
    )
    evaluate: bool = Field(
        False, description="score it on the evaluation tasks, too, whose texts are then sent and paid"
    )

    @model_validator(mode="after")
    def _require_dimensions(self) -> Self:
        known = self.service.dim()
        if known is None and self.dim is None:
            raise ValueError("nothing says how many dimensions its vectors have; state `dim`, or `service.dimensions`")
        if known is not None and self.dim not in (None, known):
            raise ValueError(f"dim {self.dim}: the service's vectors have {known} dimensions")
        self.service.require_offered("dim", self.dim)
        return self

    @model_validator(mode="after")
    def _require_batches(self) -> Self:
        if self.delivery == "batch" and self.service.batch_form is None:
            raise ValueError(f"delivery: the dialect {self.service.dialect!r} has no batch API; use `online`")
        return self

    @property
    def dimensions(self) -> int:
        """Dimensions of a vector."""
        found = self.dim or self.service.dim()
        assert found is not None, "the settings were validated"
        return int(found)

    def external_versions(self, compute: Compute) -> Mapping[str, str]:
        """None: which model answers is found out when it is asked, and noted as its epoch."""
        return {}

    def identity_settings(self) -> dict[str, Any]:
        """What its vectors depend on: neither key nor limits, price, terms or how numbers are sent."""
        return {"kind": self.kind, "name": self.name, **self._vectors_depend_on()}

    def _vectors_depend_on(self) -> dict[str, Any]:
        by_role = {role: self.service.identity(role) for role in RolePrompts.model_fields}
        trusted = {"trusted": self.trusted} if self.trusted else {}
        return {"service": by_role, "prompts": self.prompts.settings(), "dim": self.dimensions, **trusted}

    @property
    def known_batch_price(self) -> float | None:
        """The same in batches; `price`, where it is stated, is taken for both."""
        facts = self.service.published()
        return self.price if self.price is not None or facts is None else facts.batch_price

    def service_fingerprint(self) -> str:
        """Names the folder of what it answered; one for all roles and epochs."""
        return digest(self._vectors_depend_on())[:16]

    def prompt(self, role: Role) -> str:
        """What is put before texts of a role.

        Raises:
            UserError: It is neither `query` nor `document`.
        """
        if role not in RolePrompts.model_fields:
            raise UserError(
                f"teacher {self.name!r}: has no role {role!r}; a service is asked for the vectors of a query or of a "
                "document.",
                "Use one of these roles.",
            )
        prompt: str = getattr(self.prompts, role)
        return prompt

    def check(self) -> int | None:
        """Dimensions of its vectors; nothing is sent."""
        return self.dimensions

    def check_access(self, services: Services) -> None:
        """Make sure that its key is there.

        Raises:
            MissingSecretError: The environment variable is not set.
        """
        self.require_key(services, f"teacher {self.name!r}")

    def open(self, folder: Path, compute: Compute) -> ApiModel:
        """What it has answered, and the service for the rest. Nothing is sent before vectors are missing."""
        from stella_assets.teachers.api.model import ApiModel

        return ApiModel(self, compute.services)

    def encode_again(self, model: ApiModel, texts: list[str], role: Role) -> np.ndarray:
        """Vectors as the service gives them now, for money."""
        return model.encode_again(texts, role)

    def is_scored(self) -> bool:
        """Only where the recipe asks for it, as the texts of the tasks are paid."""
        return self.evaluate

    def fetch_ahead(self, model: ApiModel, wanted: Callable[[], Iterable[Wanted]]) -> None:
        """With `delivery: batch`, have the provider answer them in batches, and wait for it."""
        if self.delivery == "batch":
            model.order(wanted())

    def refused_texts(self, model: ApiModel, role: Role) -> Mapping[str, str]:
        """The texts that the service does not take."""
        return model.refused(role)

    def forecast(self, model: ApiModel, texts: CorpusTexts, stored: Mapping[Role, KeyedTable[Any]]) -> Forecast:
        """Texts that are not in the journal either, their tokens, and dollars."""
        count, tokens, counted = model.count_unknown(texts, stored)
        return self._priced(count, tokens, counted)

    def forecast_of(self, texts: int, mean_bytes: float | None) -> Forecast:
        """All texts, and an upper bound of their tokens."""
        tokens = None if mean_bytes is None else round(texts * (mean_bytes + EXTRA_TOKENS))
        return self._priced(texts, tokens, BOUND.words)

    def _priced(self, texts: int, tokens: int | None, counted: str) -> Forecast:
        price = self.known_batch_price if self.delivery == "batch" else self.known_price
        return self.priced(texts, tokens, counted, price)

    def cost(self, model: ApiModel, texts: Iterable[tuple[Role, Keys, Any]]) -> dict[str, Any]:
        """Requests, tokens and dollars of the vectors of texts."""
        return model.cost(texts)

    def trust_reason(self) -> str | None:
        """Its `trusted`."""
        return self.trusted

    def stated_terms(self) -> Terms:
        """The provider's."""
        return self.terms

    def link(self) -> str:
        """Its name, with a link to the provider's terms."""
        # Without the characters that would end the link, or begin other markup.
        return f"[{self.name}]({quote(self.terms.url, safe=URL)})"
