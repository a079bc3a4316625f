"""Semantic textual similarity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stella_assets.evaluation.kinds.base import TASK_KINDS, TaskKind
from stella_assets.storage.polars import pl

if TYPE_CHECKING:
    from stella_assets.evaluation.samples import Evidence, Samples


@TASK_KINDS.register
class Sts(TaskKind):
    """Pairs of sentences with a similarity score.

    The score of a model is Spearman's correlation of its cosines with the scores.

    References:
        Reimers, Beyer & Gurevych, "Task-Oriented Intrinsic Evaluation of Semantic Textual Similarity", COLING 2016.

    Example:
        In a recipe::

            evaluation:
              custom_tasks:
                - {kind: sts, name: OwnSimilarity, path: similar.parquet}
    """

    kind: Literal["sts"]

    MTEB_TYPE = "STS"
    MAIN_SCORE = "cosine_spearman"
    COLUMNS = ("sentence1", "sentence2", "score")

    @classmethod
    def dataset(cls, task: Any, place: Path, parts: Mapping[str, pl.DataFrame]) -> Any:
        """The columns as they are."""
        from stella_assets.evaluation.local_data import by_split

        # Integer scores are valid in a file, and mteb computes with floats.
        return by_split({name: part.select(cls.COLUMNS).cast({"score": pl.Float64}) for name, part in parts.items()})

    @classmethod
    def samples(cls, task: Any, evidence: Evidence) -> Samples:
        """One sample per pair: its cosine and its score."""
        from stella_assets.evaluation.samples import Samples, sample

        return Samples(
            "spearman",
            [
                sample(subset, split, number, value, gold)
                for subset, split, predictions, data in evidence.predictions(task)
                for number, (value, gold) in enumerate(zip(predictions["cosine_scores"], data["score"][:], strict=True))
            ],
        )
