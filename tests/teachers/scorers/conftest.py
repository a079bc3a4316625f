"""Queries with candidates in a small corpus, as artefacts of steps."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pytest

from stella_assets.core.devices import Compute
from stella_assets.core.runner import Runner
from stella_assets.core.step import Artefact, BuildContext, Result, Step, from_folder
from stella_assets.corpus.pairs import PairTables
from stella_assets.corpus.read import CorpusTexts
from stella_assets.corpus.tables import PAIR_NEGATIVES, PAIRS, TEXTS
from stella_assets.corpus.text import text_id
from stella_assets.storage.tables import Table
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.mined_negatives import MinedNegatives
from stella_assets.teachers.scorers import PairScorerConfig
from stella_assets.teachers.scorers.step import PairScoreTable, pair_scores_step
from stella_assets.teachers.snapshot import Snapshot
from stella_assets.teachers.snapshot_writer import SnapshotWriter, TeacherColumn
from stella_assets.teachers.tables import MINED_NEGATIVES
from tests.snapshots import MemoryTexts, vectors_of

QUERIES = 8
DIMS = {"one": 6, "two": 10}


def query(number: int) -> str:
    return f"Which stone has the number {number}?"


def answer(number: int) -> str:
    return f"The stone with the number {number} is red."


def other(number: int) -> str:
    return f"Stone {number} lies elsewhere."


def spread(table: Table, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [dict.fromkeys(table.schema.names) | row for row in rows]


@dataclass
class World:
    """Query n is answered by answer n; other n is a stated negative, answer n + 1 and other n + 1 are mined."""

    workspace: Workspace
    runner: Runner
    steps: dict[str, Step[Any]]
    vectors: dict[str, np.ndarray]

    def step(self, scorer: PairScorerConfig, recipe: str = "tiny", **more: Any) -> Step[PairScoreTable]:
        names = ("pairs", "mined_negatives", "corpus", "concatenation")
        return pair_scores_step(recipe, scorer=scorer, **{name: self.steps[name] for name in names}, **more)

    def score(self, scorer: PairScorerConfig, recipe: str = "tiny", **more: Any) -> tuple[pl.DataFrame, Artefact]:
        artefact = self.runner.make(self.step(scorer, recipe, **more))
        return PairScoreTable(artefact.folder).scores(), artefact


def split_of(number: int) -> str:
    return ("dev", "train", "train", "test")[number % 4]


@pytest.fixture
def world(workspace: Workspace) -> World:
    return make_world(workspace)


def make_world(workspace: Workspace, queries: int = QUERIES) -> World:
    """Texts, pairs and vectors in a workspace, with the steps that read them."""
    texts = [
        {"id": text_id(text), "text": text, "source": "s", "section": "s", "role": role, "split": split_of(number)}
        for number in range(queries)
        for text, role in ((query(number), "query"), (answer(number), "document"), (other(number), "document"))
    ]
    texts.sort(key=lambda row: row["id"])
    pairs = [{"query": text_id(query(n)), "positive": text_id(answer(n)), "split": split_of(n)} for n in range(queries)]
    # The second one is its own answer, which is not a negative.
    stated = [
        {"query": text_id(query(n)), "negative": text_id(text), "rank": rank}
        for n in range(queries)
        for rank, text in ((1, other(n)), (2, answer(n)))
    ]
    # The first one is stated, too.
    mined = [
        {"query": text_id(query(n)), "negative": text_id(text), "rank": rank, "split": split_of(n)}
        for n in range(queries - 1)
        for rank, text in ((1, other(n)), (2, answer(n + 1)), (3, other(n + 1)))
    ]
    ids = [row["id"] for row in texts]
    vectors = {name: vectors_of(ids, dim, name) for name, dim in DIMS.items()}
    columns = [
        TeacherColumn(name, dim, float(number), {}, lambda ids, _roles, n=name, d=dim: vectors_of(ids, d, n))
        for number, (name, dim) in enumerate(DIMS.items(), 1)
    ]
    SnapshotWriter(workspace, "tiny").write("one", MemoryTexts(texts), columns, {})

    def write(*tables: tuple[Table, list[dict[str, Any]]]) -> Any:
        def build(context: BuildContext) -> Result:
            for table, rows in tables:
                table.write(context.folder, spread(table, rows))
            return Result()

        return build

    def step(name: str, build: Any, read: Any) -> Step[Any]:
        return Step(recipe="tiny", name=name, code_version="1", settings={}, build=build, read=read)

    nothing = write()
    steps = {
        "pairs": step("pairs", write((PAIRS, pairs), (PAIR_NEGATIVES, stated)), from_folder(PairTables)),
        "mined_negatives": step("mined_negatives", write((MINED_NEGATIVES, mined)), from_folder(MinedNegatives)),
        "corpus": step("corpus", write((TEXTS, texts)), from_folder(CorpusTexts)),
        "concatenation": step("vectors", nothing, lambda _artefact, place: Snapshot.open(place, "tiny", "one")),
    }
    runner = Runner(workspace, logging.getLogger("test"), Compute())
    for each in steps.values():
        runner.make(each)
    return World(workspace, runner, steps, {key: {n: v[i] for n, v in vectors.items()} for i, key in enumerate(ids)})
