"""Clustering."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stella_assets.evaluation.kinds.base import TASK_KINDS, TaskKind
from stella_assets.storage.polars import pl

if TYPE_CHECKING:
    from stella_assets.evaluation.samples import Evidence, Samples

# mteb draws 16,384 with replacement, which repeats each text of a small custom file many times.
CLUSTERED_TEXTS = 2500
"""Texts of each of the ten clusterings of a custom task."""


@TASK_KINDS.register
class Clustering(TaskKind):
    """Texts with the label of their cluster.

    mteb clusters the vectors and compares the clusters with the labels by the v-measure.

    References:
        Rosenberg & Hirschberg, "V-Measure: A Conditional Entropy-Based External Cluster Evaluation Measure",
        EMNLP-CoNLL 2007.
        Enevoldsen et al., "MMTEB: Massive Multilingual Text Embedding Benchmark", arXiv:2502.13595, for the
        bootstrapped clusterings.

    Example:
        In a recipe::

            evaluation:
              custom_tasks:
                - {kind: clustering, name: OwnClusters, path: topics.parquet}
    """

    kind: Literal["clustering"]

    MTEB_TYPE = "Clustering"
    MAIN_SCORE = "v_measure"
    CATEGORY = "t2c"
    COLUMNS = ("text", "label")

    @classmethod
    def matches(cls, task: Any) -> bool:
        """Tasks of mteb's older class are clusterings, too."""
        return isinstance(task, (cls.mteb_class(), _legacy_class()))

    @classmethod
    def attributes(cls) -> Mapping[str, Any]:
        """How much of the data is clustered."""
        # mteb's default, 4% of the texts, is meant for millions; None takes all of them.
        return {"max_fraction_of_documents_to_embed": None, "max_documents_per_cluster": CLUSTERED_TEXTS}

    @classmethod
    def dataset(cls, task: Any, place: Path, parts: Mapping[str, pl.DataFrame]) -> Any:
        """One row per text; for mteb's older class one row per set of texts."""
        from stella_assets.evaluation.local_data import TaskDataError, by_split

        for name, part in parts.items():
            if part["label"].n_unique() < 2:
                raise TaskDataError(f"{place}: split {name} has one label only.", "A clustering needs two or more.")
        columns = [pl.col("text").alias(task.input_column_name), pl.col("label").alias(task.label_column_name)]
        if isinstance(task, _legacy_class()):
            # The older class scores one clustering per row, so all texts go into one row.
            columns = [column.implode() for column in columns]
        return by_split({name: part.select(columns) for name, part in parts.items()})

    @classmethod
    def samples(cls, task: Any, evidence: Evidence) -> Samples:
        """One sample per clustering: its v-measure."""
        from stella_assets.evaluation.samples import Samples, sample

        rows = []
        for split, scores in evidence.result.scores.items():
            for score in scores:
                # Hierarchical clusterings have measures for each level.
                measures = score.get("v_measures", [])
                flat = [m for level in measures.values() for m in level] if isinstance(measures, dict) else measures
                rows += [sample(score["hf_subset"], split, number, value) for number, value in enumerate(flat)]
        return Samples("mean", rows)


def _legacy_class() -> type:
    from mteb.abstasks.clustering_legacy import AbsTaskClusteringLegacy

    return AbsTaskClusteringLegacy
