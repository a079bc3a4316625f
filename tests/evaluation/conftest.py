"""Small tasks of every kind, on disk and inside mteb's classes."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stella_assets.core.step import Result, Step
from stella_assets.evaluation.kinds import TASK_KINDS
from stella_assets.evaluation.tasks import EvaluationTask
from stella_assets.students import DenseConfig

KINDS = ["sts", "classification", "clustering", "pair_classification", "retrieval", "reranking"]
TOPICS = {
    "sorting": "The function sorts an array of numbers in ascending order",
    "network": "The client opens a network connection to a remote host",
    "plotting": "The figure draws a line plot with labelled axes",
}


def sentences(count: int) -> list[tuple[str, str]]:
    """(topic, sentence), topics alternating."""
    names = list(TOPICS)
    return [(names[i % 3], f"{TOPICS[names[i % 3]]}, example {i}.") for i in range(count)]


def write_tasks(folder: Path) -> dict[str, Path]:
    """A task of each kind in the local layout, with hard cases among them; their paths by kind."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = sentences(60)
    pairs = list(zip(rows, rows[1:] + rows[:1], strict=True)) + list(zip(rows, rows[3:] + rows[:3], strict=True))
    same = [int(a[0] == b[0]) for a, b in pairs]
    two = {"sentence1": [a[1] for a, _ in pairs], "sentence2": [b[1] for _, b in pairs]}
    split = {"split": ["test"] * len(pairs)}
    labelled = {"text": [text for _, text in rows], "label": [topic for topic, _ in rows]}
    tables = {
        "sts": two | {"score": [4.0 * s + 0.01 * i for i, s in enumerate(same)]} | split,
        "pair_classification": two | {"label": same} | split,
        "classification": labelled | {"split": ["train"] * 30 + ["test"] * 30},
        "clustering": labelled,
        "reranking": {
            "query": ["sort numbers", "connect to a server"],
            "positive": [[rows[0][1]], [rows[1][1], rows[4][1]]],
            "negative": [[rows[1][1], rows[2][1]], [rows[0][1], rows[2][1]]],
            "split": ["test", "test"],
        },
    }
    places = {kind: folder / f"{kind}.parquet" for kind in tables}
    for kind, table in tables.items():
        pl.DataFrame(table).write_parquet(places[kind])
    places["retrieval"] = folder / "retrieval"
    places["retrieval"].mkdir(exist_ok=True)
    retrieval = {
        "corpus": {"id": [f"d{i}" for i in range(60)], "title": ["", None] * 30, "text": labelled["text"]},
        "queries": {"id": ["q0", "q1"], "text": ["sort numbers", "connect to a server"]},
        "qrels": {"query_id": ["q0", "q1", "q1"], "doc_id": ["d0", "d1", "d4"], "score": [1, 1, 1]},
    }
    for name, table in retrieval.items():
        pl.DataFrame(table).write_parquet(places["retrieval"] / f"{name}.parquet")
    return places


@pytest.fixture
def dense(raw: dict[str, Any]) -> DenseConfig:
    """Settings of a student with a Matryoshka head of 32 dimensions."""
    return DenseConfig.model_validate(raw["student"] | {"matryoshka_dims": [32]})


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    return write_tasks(tmp_path / "data")


def own_task(kind: str, place: Path, **more: Any) -> EvaluationTask:
    task = TASK_KINDS[kind].new_task(f"own_{kind}", "A task.", **more)
    return EvaluationTask(task, "custom", place, reads_files=True)


def empty_step(name: str, family: str = "") -> Step[Any]:
    """A step that makes an empty artefact."""
    return Step(recipe="tiny", name=name, code_version="1", settings={}, build=lambda _context: Result(), family=family)
