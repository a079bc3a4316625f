"""Six public tasks, one or two per type, through mteb's own task classes, read from a folder of Parquet files.

STSBenchmark, SICK-R, Banking77 and SciFact are scored on the rows that MTEB has. The newsgroups' subject lines and
TrecQA stand in for a clustering and a reranking task.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from stella_assets.core.devices import Compute
from stella_assets.core.runner import Runner
from stella_assets.core.step import BuildContext
from stella_assets.evaluation.encoders import Embedder
from stella_assets.evaluation.kinds import TASK_KINDS
from stella_assets.evaluation.official import local_task
from stella_assets.evaluation.task_scores import TaskScorer
from stella_assets.evaluation.tasks import EvaluationTask
from stella_assets.storage.workspace import Workspace

OFFICIAL = ("STSBenchmark", "SICK-R", "Banking77Classification", "SciFact")
CUSTOM = {"TwentyNewsgroups": ("clustering", "TwentyNewsgroups_subjects"), "TrecQA": ("reranking", "TrecQA_rerank")}


def load_tasks(folder: Path) -> list[EvaluationTask]:
    """The six tasks, which read their data from `folder`."""
    import mteb

    everything = {"SICK-R": {"test": ("train", "validation", "test")}}
    official = [local_task(mteb.get_task(name), _place(folder, name), everything.get(name, {})) for name in OFFICIAL]
    custom = [
        EvaluationTask(TASK_KINDS[kind].new_task(name, name), "custom", folder / f"{file}.parquet", reads_files=True)
        for name, (kind, file) in CUSTOM.items()
    ]
    return [*official, *custom]


def _place(folder: Path, name: str) -> Path:
    return folder / name if (folder / name).is_dir() else folder / f"{name}.parquet"


def evaluate(embedder: Embedder, folder: Path, workspace: Workspace) -> dict[str, float]:
    """The main score of each task, times 100, and their mean as `mean`."""
    with tempfile.TemporaryDirectory() as scratch:
        nowhere = Path(scratch)
        log = logging.getLogger("stella")
        runner = Runner(workspace, log)
        context = BuildContext("", "", nowhere, nowhere, {}, workspace, log, Compute(), runner=runner)
        rows = [TaskScorer("benchmark", task, context).score("student", embedder).row for task in load_tasks(folder)]
    scores = {row["task"]: 100 * row["score"] for row in rows}
    return {**scores, "mean": sum(scores.values()) / len(scores)}
