"""Six public tasks, one or two a type, through mteb's own task classes, read from a folder of Parquet files.

STSBenchmark, SICK-R, Banking77 and SciFact are scored on the rows that MTEB has. The newsgroups' subject lines and
TrecQA stand in for a clustering and a reranking task.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from storage.workspace import Workspace

from stella_assets.core.step import BuildContext
from stella_assets.evaluation.encoders import Embedder
from stella_assets.evaluation.score import TaskScorer
from stella_assets.evaluation.tasks import EvaluationTask, make_task

OFFICIAL = {
    "STSBenchmark": "sts",
    "SICK-R": "sts",
    "Banking77Classification": "classification",
    "SciFact": "retrieval",
}
OWN = {"TwentyNewsgroups": ("clustering", "TwentyNewsgroups_subjects"), "TrecQA": ("reranking", "TrecQA_rerank")}


def load_tasks(folder: Path) -> list[EvaluationTask]:
    """The six tasks, which read their data from `folder`."""
    import mteb

    everything = {"SICK-R": {"test": ("train", "validation", "test")}}
    official = [
        EvaluationTask(mteb.get_task(name), "local", kind, _place(folder, name), everything.get(name, {}))
        for name, kind in OFFICIAL.items()
    ]
    own = [
        EvaluationTask(make_task(name, kind, name), "own", kind, folder / f"{file}.parquet")
        for name, (kind, file) in OWN.items()
    ]
    return [*official, *own]


def _place(folder: Path, name: str) -> Path:
    return folder / name if (folder / name).is_dir() else folder / f"{name}.parquet"


def evaluate(embedder: Embedder, folder: Path, workspace: Workspace) -> dict[str, float]:
    """The main score of each task, times 100, and their mean as `mean`."""
    with tempfile.TemporaryDirectory() as scratch:
        nowhere = Path(scratch)
        context = BuildContext("benchmark", "", nowhere, nowhere, {}, workspace, logging.getLogger("stella"))
        rows = [TaskScorer(task, context).score("student", embedder)[1] for task in load_tasks(folder)]
    scores = {row["task"]: 100 * row["score"] for row in rows}
    return {**scores, "mean": sum(scores.values()) / len(scores)}
