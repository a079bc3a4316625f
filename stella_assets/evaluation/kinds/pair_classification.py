"""Classification of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stella_assets.evaluation.kinds.base import TASK_KINDS, TaskKind
from stella_assets.storage.polars import pl

if TYPE_CHECKING:
    from stella_assets.evaluation.samples import Evidence, Samples


@TASK_KINDS.register
class PairClassification(TaskKind):
    """Pairs of sentences that belong together or do not.

    The score of a model is the average precision of its similarities, the highest of those that mteb computes.

    References:
        Muennighoff et al., "MTEB: Massive Text Embedding Benchmark", arXiv:2210.07316, section 3.2.

    Example:
        In a recipe::

            evaluation:
              custom_tasks:
                - {kind: pair_classification, name: OwnDuplicates, path: duplicates.parquet}
    """

    kind: Literal["pair_classification"]

    MTEB_TYPE = "PairClassification"
    MAIN_SCORE = "max_ap"
    COLUMNS = ("sentence1", "sentence2", "label")

    @classmethod
    def dataset(cls, task: Any, place: Path, parts: Mapping[str, pl.DataFrame]) -> Any:
        """The columns under mteb's names."""
        from stella_assets.evaluation.local_data import TaskDataError, by_split

        for name, part in parts.items():
            # Average precision needs both: without a 1 it is undefined, without a 0 it is always 1.
            if set(part["label"].to_list()) != {0, 1}:
                raise TaskDataError(
                    f"{place}: labels of split {name} are not both 0 and 1.", "Write 1 for pairs that belong together."
                )
        columns = (
            pl.col("sentence1").alias(task.input1_column_name),
            pl.col("sentence2").alias(task.input2_column_name),
            pl.col("label").cast(pl.Int64).alias(task.label_column_name),
        )
        return by_split({name: part.select(columns) for name, part in parts.items()})

    @classmethod
    def samples(cls, task: Any, evidence: Evidence) -> Samples:
        """One sample per pair, by the similarity with the highest average precision: `max_ap` is its score."""
        import numpy as np

        from stella_assets.evaluation.samples import Samples, average_precision, sample

        rows = []
        for subset, split, predictions, data in evidence.predictions(task):
            gold = data[task.label_column_name][:]
            # Older data sets of mteb keep all pairs in one row.
            gold = np.array(gold[0] if len(gold) == 1 else gold)
            # A small distance means similar, so distances count negatively.
            tried = [
                (-1 if name.endswith("distances") else 1) * np.array(values)
                for name, values in sorted(predictions.items())
            ]
            # `sorted` above makes the choice among equally good similarities the same in every run.
            best = max(tried, key=lambda values: average_precision(values, gold))
            rows += [sample(subset, split, n, v, g) for n, (v, g) in enumerate(zip(best, gold, strict=True))]
        return Samples("average_precision", rows)
