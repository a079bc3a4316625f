"""What a score consists of, sample by sample, so that two models can be compared on the same resampled samples.

A sample is a pair of sentences, a query, a classified text or a clustering. The statistic computes the score from the
samples: their mean, Spearman's correlation with the gold scores (STS), or average precision (pair classification).

Shapes: N samples.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stella_assets.evaluation.kinds.base import TaskKind
from stella_assets.evaluation.tables import SAMPLES

# A hundredth of a point: above the rounding of mteb's predictions, far below the noise of the samples.
TOLERANCE = 1e-4
"""Samples are kept where their statistic differs from mteb's score by no more."""

Rows = list[dict[str, Any]]
Statistic = Callable[[np.ndarray, np.ndarray], float]
PerQuery = dict[tuple[str, str], Mapping[str, Mapping[str, float]]]
"""By subset and split, then by query: the value of each measure."""


@dataclass(frozen=True)
class Samples:
    """The samples of a score.

    Attributes:
        statistic: A key of `STATISTICS`, or `none` without samples.
        rows: Of the schema `SAMPLES`.
    """

    statistic: str
    rows: Rows = field(default_factory=list)


NO_SAMPLES = Samples("none")


@dataclass(frozen=True)
class Evidence:
    """What an evaluation by mteb left behind.

    Attributes:
        result: mteb's result.
        folder: Where mteb wrote predictions.
        per_query: Measures of each query of a retrieval.
    """

    result: Any
    folder: Path
    per_query: PerQuery

    def predictions(self, task: Any) -> list[tuple[str, str, Any, Any]]:
        """Subset, split, predictions and data, as mteb wrote them."""
        path = self.folder / task.prediction_file_name
        if not path.is_file():
            return []
        written = json.loads(path.read_text(encoding="utf-8"))
        return [
            (subset, split, predictions, task.dataset.get(subset, task.dataset)[split])
            for subset, by_split in written.items()
            # mteb notes the model under this key, among the subsets.
            if subset != "mteb_model_meta"
            for split, predictions in by_split.items()
        ]


def mean(values_N: np.ndarray, _gold_N: np.ndarray) -> float:
    """Mean of the values."""
    return float(values_N.mean())


def spearman(values_N: np.ndarray, gold_N: np.ndarray) -> float:
    """Correlation of the ranks, ties at their mean rank.

    Args:
        values_N: Similarities.
        gold_N: The scores that they should rank like.

    Returns:
        In [-1, 1]; 0 where either side is constant.

    References:
        Reimers, Beyer & Gurevych, "Task-Oriented Intrinsic Evaluation of Semantic Textual Similarity", COLING 2016.
    """
    from scipy.stats import rankdata

    ranks = rankdata(values_N), rankdata(gold_N)
    spread = ranks[0].std() * ranks[1].std()
    # Not `scipy.stats.spearmanr`: it computes a p-value and warns on constant input, for each of many resamples.
    # Constant values have no correlation; NaN would spread into every mean, so they score 0.
    return float(((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())).mean() / spread) if spread else 0.0


def average_precision(values_N: np.ndarray, gold_N: np.ndarray) -> float:
    """Area under precision by recall, in steps; equal values are one step. Faster than scikit-learn's, and equal.

    Args:
        values_N: Similarities.
        gold_N: 1 for pairs that belong together, else 0.

    Returns:
        In [0, 1]; 0 without a pair that belongs together.
    """
    # A stable sort keeps ties in the order of the samples, so results do not depend on the processor.
    order = np.argsort(-values_N, kind="stable")
    # Equal similarities have no order: they enter together, and precision is read at the end of the step.
    last_of_step = np.append(np.flatnonzero(np.diff(values_N[order])), len(order) - 1)
    found = np.cumsum(gold_N[order])[last_of_step]
    if not found[-1]:
        return 0.0
    return float((np.diff(found, prepend=0) * found / (last_of_step + 1)).sum() / found[-1])


STATISTICS: dict[str, Statistic] = {"mean": mean, "spearman": spearman, "average_precision": average_precision}


def watch_queries(task: Any) -> PerQuery:
    """Make a retrieval task record the measures of each query while it is scored; mteb keeps only their mean.

    Args:
        task: The instance that will be scored. It is changed.

    Returns:
        A mapping that fills while the task is scored; it stays empty for tasks without queries.
    """
    noted: PerQuery = {}
    # Only mteb's retrieval class, and so reranking, has this hook.
    original = getattr(task, "task_specific_scores", None)
    if original is None:
        return noted

    def note(scores: Any, *args: Any, hf_split: str, hf_subset: str) -> Any:
        noted[hf_subset, hf_split] = scores
        return original(scores, *args, hf_split=hf_split, hf_subset=hf_subset)

    task.task_specific_scores = note
    return noted


def collect(kind: type[TaskKind] | None, task: Any, evidence: Evidence) -> Samples:
    """The samples of one scored task; none where they do not give mteb's score.

    Args:
        kind: Of the task; None where no kind matches.
        task: With its data.
        evidence: What mteb's evaluation left behind.
    """
    if kind is None:
        return NO_SAMPLES
    # A task may define its main score differently from its kind. Samples that do not give the score would put
    # the interval around another number, so the task then has no samples.
    found = kind.samples(task, evidence)
    score = float(evidence.result.get_score())
    # Written so that NaN, which compares as false, counts as a difference.
    agrees = bool(found.rows) and abs(estimate(found.statistic, found.rows) - score) <= TOLERANCE
    return found if agrees else NO_SAMPLES


def estimate(statistic: str, rows: Rows) -> float:
    """The score that samples give: the mean over subsets and splits of the statistic of each."""
    parts: dict[tuple[str, str], Rows] = {}
    for row in rows:
        parts.setdefault((row["subset"], row["split"]), []).append(row)
    scores = [
        STATISTICS[statistic](np.array([row["value"] for row in part]), np.array([row["gold"] for row in part]))
        for part in parts.values()
    ]
    return float(np.mean(scores))


def sample(subset: str, split: str, name: str | int, value: float, gold: float = 0.0) -> dict[str, Any]:
    """One row of `SAMPLES`.

    Args:
        subset: mteb's subset.
        split: mteb's split.
        name: Of the sample within its subset and split.
        value: Its contribution, e.g. a cosine or a measure.
        gold: What is correct, for statistics that compare with it.
    """
    row = {"subset": subset, "split": split, "sample": str(name), "value": float(value), "gold": float(gold)}
    assert row.keys() == set(SAMPLES.names)
    return row
