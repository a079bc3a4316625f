"""Models that rank documents for queries, as mteb evaluates them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from stella_assets.evaluation.encoders import Embedder, EncoderIdentity, MtebEncoder
from stella_assets.evaluation.task_scores import prompts_of

if TYPE_CHECKING:
    from stella_assets.evaluation.tasks import EvaluationTask
    from stella_assets.students.retriever import Retriever
    from stella_assets.training.retrievers.base import RetrieverConfig

Prompts = Mapping[str, str | None]


class Ranker(Protocol):
    """A model that ranks documents."""

    @property
    def dim(self) -> int:
        """Dimensions of its vectors; 1 for a model that gives a score without vectors."""

    @property
    def reranks(self) -> int | None:
        """Documents of a first step that it ranks; None for a model that searches all documents."""

    def identity(self) -> EncoderIdentity:
        """What its scores depend on in addition to texts and prompts."""

    def prompts(self, part: EvaluationTask) -> Prompts:
        """What it puts before texts: `query` and `document`."""

    def mteb_model(self, name: str, revision: str) -> Any:
        """A model that `mteb.evaluate` takes.

        Args:
            name: Of the model.
            revision: Digest of everything that decides its scores.
        """


class DenseRanker:
    """An embedder, which ranks documents by their cosine with the query.

    Args:
        embedder: At one dimension.
    """

    reranks = None

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    @property
    def dim(self) -> int:
        """Dimensions of its vectors."""
        return self._embedder.dim

    def identity(self) -> EncoderIdentity:
        """The embedder's."""
        return self._embedder.identity()

    def prompts(self, part: EvaluationTask) -> Prompts:
        """The embedder's for the task."""
        return prompts_of(self._embedder, part)

    def mteb_model(self, name: str, revision: str) -> MtebEncoder:
        """The embedder as an encoder of mteb."""
        return MtebEncoder(self._embedder, name, revision)


class TrainedRanker:
    """A retriever of a recipe.

    Args:
        settings: Of the retriever.
        retriever: In memory.
        weights: Digest of its artefact.
    """

    def __init__(self, settings: RetrieverConfig, retriever: Retriever, weights: str) -> None:
        self._settings, self._retriever, self._weights = settings, retriever, weights

    @property
    def dim(self) -> int:
        """Of a token's vector; 1 for a reranker."""
        return self._settings.dimension

    @property
    def reranks(self) -> int | None:
        """As its settings say."""
        return self._settings.reranks

    def identity(self) -> EncoderIdentity:
        """Digest of the saved model, which includes its prompts and its length."""
        model = self._retriever.model
        return EncoderIdentity(self._settings.kind, self._weights, "float32", model.max_seq_length)

    def prompts(self, part: EvaluationTask) -> Prompts:
        """Those of the saved model, on every task."""
        del part
        prompts = self._retriever.model.prompts
        return {side: prompts.get(side) for side in ("query", "document")}

    def mteb_model(self, name: str, revision: str) -> Any:
        """The sentence-transformers model, for which mteb has wrappers of its own."""
        del name, revision
        return self._retriever.model
