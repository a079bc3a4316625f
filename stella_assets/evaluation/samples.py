"""What a score is made of, sample by sample, so that two models can be compared on the same resampled samples.

A sample is a pair of sentences, a query, a classified text or a clustering. How the score comes of the samples is its
statistic: their mean, Spearman's correlation with the gold scores (STS), or average precision (pair classification).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from storage.statistics import SAMPLES

TOLERANCE = 1e-4
"""Samples are kept where their statistic gives the score of mteb this closely."""
TREC_NAMES = {"ndcg": "ndcg_cut_{}", "map": "map_cut_{}", "recall": "recall_{}", "precision": "P_{}"}
"""trec_eval's names of mteb's scores at a rank."""

Rows = list[dict[str, Any]]
Statistic = Callable[[np.ndarray, np.ndarray], float]
PerQuery = dict[tuple[str, str], Mapping[str, Mapping[str, float]]]


def mean(values_N: np.ndarray, _gold_N: np.ndarray) -> float:
    """Mean of what each sample is worth."""
    return float(values_N.mean())


def spearman(values_N: np.ndarray, gold_N: np.ndarray) -> float:
    """Correlation of the ranks, ties at their mean rank."""
    from scipy.stats import rankdata

    ranks = rankdata(values_N), rankdata(gold_N)
    spread = ranks[0].std() * ranks[1].std()
    return float(((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())).mean() / spread) if spread else 0.0


def average_precision(values_N: np.ndarray, gold_N: np.ndarray) -> float:
    """Area under precision by recall, in steps; equal values count as one step, as in scikit-learn, which is slower."""
    order = np.argsort(-values_N, kind="stable")
    last_of_step = np.append(np.flatnonzero(np.diff(values_N[order])), len(order) - 1)
    found = np.cumsum(gold_N[order])[last_of_step]
    if not found[-1]:
        return 0.0
    return float((np.diff(found, prepend=0) * found / (last_of_step + 1)).sum() / found[-1])


STATISTICS: dict[str, Statistic] = {"mean": mean, "spearman": spearman, "average_precision": average_precision}


def watch_queries(task: Any) -> PerQuery:
    """Let a retrieval task note the measures of each query, by subset and split, as it is scored."""
    noted: PerQuery = {}
    original = getattr(task, "task_specific_scores", None)
    if original is None:
        return noted

    def note(scores: Any, *args: Any, hf_split: str, hf_subset: str) -> Any:
        noted[hf_subset, hf_split] = scores
        return original(scores, *args, hf_split=hf_split, hf_subset=hf_subset)

    task.task_specific_scores = note
    return noted


def collect(task: Any, result: Any, predictions: Path, per_query: PerQuery) -> tuple[str, Rows]:
    """The samples of one scored task.

    Args:
        task: With its data.
        result: mteb's.
        predictions: The folder that mteb wrote predictions into.
        per_query: What `watch_queries` noted.

    Returns:
        The name of the statistic, and rows of `SAMPLES`; `none` and no rows where mteb does not tell enough.
    """
    name, score = str(task.metadata.main_score), float(result.get_score())
    if per_query:
        statistic, rows = "mean", _of_queries(name, per_query)
    elif "Classification" in task.metadata.type and task.metadata.type != "PairClassification":
        statistic, rows = "mean", _of_classification(task, predictions) if name == "accuracy" else []
    elif task.metadata.type == "PairClassification":
        statistic, rows = "average_precision", _of_pairs(task, predictions)
    elif task.metadata.type == "STS":
        statistic, rows = "spearman", _of_sts(task, predictions)
    elif task.metadata.type == "Clustering":
        statistic, rows = "mean", _of_clustering(result)
    else:
        statistic, rows = "none", []
    if not rows or abs(estimate(statistic, rows) - score) > TOLERANCE:
        return "none", []
    return statistic, rows


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


def _row(subset: str, split: str, sample: str | int, value: float, gold: float = 0.0) -> dict[str, Any]:
    row = {"subset": subset, "split": split, "sample": str(sample), "value": float(value), "gold": float(gold)}
    assert row.keys() == set(SAMPLES.names)
    return row


def _of_queries(name: str, per_query: PerQuery) -> Rows:
    found = re.fullmatch(r"(\w+)_at_(\d+)", name)
    if found is None or found[1] not in TREC_NAMES:
        return []
    measure = TREC_NAMES[found[1]].format(found[2])
    return [
        _row(subset, split, query, measures[measure])
        for (subset, split), queries in per_query.items()
        for query, measures in queries.items()
    ]


def _predicted(task: Any, folder: Path) -> list[tuple[str, str, Any, Any]]:
    """(subset, split, predictions, data) as mteb wrote them."""
    path = folder / task.prediction_file_name
    if not path.is_file():
        return []
    written = json.loads(path.read_text(encoding="utf-8"))
    return [
        (subset, split, predictions, task.dataset.get(subset, task.dataset)[split])
        for subset, by_split in written.items()
        if subset != "mteb_model_meta"
        for split, predictions in by_split.items()
    ]


def _of_sts(task: Any, folder: Path) -> Rows:
    return [
        _row(subset, split, number, value, gold)
        for subset, split, predictions, data in _predicted(task, folder)
        for number, (value, gold) in enumerate(zip(predictions["cosine_scores"], data["score"][:], strict=True))
    ]


def _of_pairs(task: Any, folder: Path) -> Rows:
    """Of the similarities that mteb tries, the one with the best average precision, which is what `max_ap` says."""
    rows = []
    for subset, split, predictions, data in _predicted(task, folder):
        gold = data[task.label_column_name][:]
        gold = np.array(gold[0] if len(gold) == 1 else gold)
        tried = [
            (-1 if name.endswith("distances") else 1) * np.array(values) for name, values in sorted(predictions.items())
        ]
        best = max(tried, key=lambda values: average_precision(values, gold))
        rows += [_row(subset, split, n, v, g) for n, (v, g) in enumerate(zip(best, gold, strict=True))]
    return rows


def _of_classification(task: Any, folder: Path) -> Rows:
    """In how many of the experiments a text got its label."""
    rows = []
    for subset, split, predictions, data in _predicted(task, folder):
        gold = np.array(data[task.label_column_name][:])
        if any(len(experiment) != len(gold) for experiment in predictions):  # cross-validation
            return []
        right = (np.array(predictions) == gold).mean(axis=0)
        rows += [_row(subset, split, number, value) for number, value in enumerate(right)]
    return rows


def _of_clustering(result: Any) -> Rows:
    rows = []
    for split, scores in result.scores.items():
        for score in scores:
            measures = score.get("v_measures", [])
            flat = [m for level in measures.values() for m in level] if isinstance(measures, dict) else measures
            rows += [_row(score["hf_subset"], split, number, value) for number, value in enumerate(flat)]
    return rows
