"""What every scorer of pairs is: settings in a recipe, and scores of a query with a document."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field

from stella_assets.core.config import ConfigModel, ModelSource, Name
from stella_assets.core.devices import Compute
from stella_assets.core.registry import Registry
from stella_assets.core.services import Services
from stella_assets.core.step import Log
from stella_assets.corpus.read import CorpusTexts
from stella_assets.storage.polars import pl
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.forecast import Forecast
from stella_assets.teachers.snapshot import Snapshot
from stella_assets.teachers.terms import Terms

Scores = npt.NDArray[np.float64]


class PairModel(Protocol):
    """A model in memory that scores pairs of texts."""

    def score_pairs(self, queries: Sequence[str], documents: Sequence[str]) -> npt.NDArray[np.float32]:
        """Scores `[n]`; a higher one says that the document answers the query better.

        Args:
            queries: One per pair.
            documents: As many.
        """


class SavedPairModel(Protocol):
    """A model that was trained in a step of the recipe, as that step reads it."""

    def load(self, compute: Compute) -> PairModel:
        """The model in memory."""


@dataclass(frozen=True)
class TrainedModel:
    """A retriever of the recipe.

    Attributes:
        digest: Of its artefact.
        load: Gives it, ready to score.
    """

    digest: str
    load: Callable[[Compute], PairModel]


@dataclass(frozen=True)
class Scoring:
    """What a scorer works with.

    Attributes:
        texts: The corpus, which has the texts of all pairs.
        workspace: Where scores are kept.
        compute: Devices and number format.
        log: For people.
        snapshot: The teachers' stored vectors; only for kinds that read them.
        retriever: What `scored_by` names.
    """

    texts: CorpusTexts
    workspace: Workspace
    compute: Compute
    log: Log
    snapshot: Snapshot | None = None
    retriever: TrainedModel | None = None


@dataclass(frozen=True)
class Scored:
    """The scores of pairs.

    Attributes:
        scores_N: One per pair, in their order; NaN for a pair that has none.
        left_out: Why pairs have none, in words, and how many of each.
        metrics: Further figures to show.
        table: Of the store, where the scores are kept; empty where they are not.
    """

    scores_N: Scores
    left_out: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    table: str = ""


class PairScorerConfig(ConfigModel):
    """Settings that every scorer has.

    A kind is a subclass with a field `kind: Literal["..."]`, registered with `PAIR_SCORERS`.

    Example:
        >>> @PAIR_SCORERS.register
        ... class WordOverlap(PairScorerConfig):
        ...     '''How many words both texts have.'''
        ...     kind: Literal["word_overlap"]
    """

    icons: ClassVar[frozenset[str]] = frozenset()
    """Technologies, for the UI."""
    reads_vectors: ClassVar[bool] = False
    """Whether it reads the teachers' stored vectors; then it depends on the snapshot."""
    paid: ClassVar[bool] = False
    """Whether others compute its scores, for money."""

    name: Name = Field(description="of the scorer, by which `retrievers` choose it")
    kind: str = Field(description="which of the kinds below")

    @property
    def owner(self) -> str:
        """What messages call it."""
        return f"pair_scores {self.name!r}"

    @abstractmethod
    def score(self, pairs: pl.DataFrame, scoring: Scoring) -> Scored:
        """The scores of pairs: the higher, the better the document answers the query.

        Args:
            pairs: With the ids `query` and `document`, by query.
            scoring: What it works with.

        Raises:
            UserError: It cannot be used as the recipe says.
        """

    def scored_by(self) -> str | None:
        """Name of the recipe's retriever that scores; None where something else does."""
        return None

    def taught_by(self, teachers: Sequence[str]) -> Sequence[str]:
        """Names of the teachers whose vectors decide its scores.

        Args:
            teachers: Names of the recipe's teachers.
        """
        del teachers
        return ()

    def published_model(self) -> ModelSource | None:
        """Where its model is; None for a scorer without a model of its authors."""
        return None

    def identity_settings(self) -> dict[str, Any]:
        """The settings that decide its scores."""
        return self.settings()

    def external_versions(self, compute: Compute) -> Mapping[str, str]:
        """What its scores depend on outside the recipe, e.g. a digest of weights. No model is loaded.

        Args:
            compute: What it would compute with.

        Raises:
            UserError: Its files do not exist.
        """
        del compute
        return {}

    def require_fit(self, place: str, teachers: Sequence[str]) -> None:
        """Make sure that it fits the rest of the recipe.

        Args:
            place: Where it stands in the recipe.
            teachers: Names of the recipe's teachers.

        Raises:
            ValueError: It does not.
        """
        del place, teachers

    def check_access(self, services: Services) -> None:
        """Make sure that it can be asked; nothing for a model that runs here.

        Raises:
            UserError: Something is missing that it needs, e.g. a key.
        """
        del services

    def forecast(self, pairs: pl.DataFrame, texts: CorpusTexts, services: Services) -> Forecast | None:
        """What it would cost to score pairs; None for a model that runs here. Nothing is sent.

        Args:
            pairs: With the ids `query` and `document`, by query.
            texts: The corpus.
            services: Where answers are kept.
        """
        del pairs, texts, services
        return None

    def stated_terms(self) -> Terms | None:
        """What its provider allows; None for a model that runs here."""
        return None

    def check(self) -> None:
        """Make sure that its files can be used, without loading a model.

        Raises:
            UserError: They cannot.
        """


PAIR_SCORERS: Registry[PairScorerConfig] = Registry("pair scorer")
