"""Every query of docs/sql.md, as it is printed there, on a workspace with two snapshots of one recipe."""

import copy
import logging
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from stella_assets.core.runner import Runner
from stella_assets.core.step import upstream
from stella_assets.corpus.tables import (
    CONTAMINATION,
    DROPPED_PAIRS,
    PAIR_FUNNEL,
    PAIR_NEGATIVES,
    PAIRS,
    SCORED_PAIRS,
)
from stella_assets.evaluation.tables import MODEL_SAMPLES, QUERY_MEASURES, RANKINGS, SCORES, TASKS
from stella_assets.pipelines.run_record import recorded
from stella_assets.pipelines.views import connect, refresh_views
from stella_assets.recipe import Graph, read_recipe
from stella_assets.redistil.ledger import Entry, Ledger
from stella_assets.release.tables import VERDICTS
from stella_assets.storage.workspace import Workspace
from stella_assets.study.tables import STUDY
from stella_assets.teachers.centre import NARROW
from stella_assets.teachers.snapshot import Snapshot, current_snapshot
from stella_assets.teachers.tables import COSTS, MINED_NEGATIVES, PAIR_SCORES, SUSPECTS
from stella_assets.training.tables import RETRIEVER_LOG, TRAINING_LOG
from tests.conftest import TINY, write_recipe

PAGE = (Path(__file__).parents[2] / "docs" / "sql.md").read_text(encoding="utf-8")
RECIPE = "demo"  # the recipe that the page's own code names
QUESTIONS = re.findall(r"^### (.+?)\n(?:(?!^#).)*?^```sql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PYTHON = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
VIEW_ROWS = re.findall(r"^\| `(\w+)` \| [^|]+ \| ((?:`\w+`(?:, )?)+) \|$", PAGE, re.MULTILINE)
CANDIDATE = {"scorer": "store", "query": "00", "split": "dev", "document": "01", "origin": "positive", "score": 0.9}
SCORED = (
    ("teacher/minilm", 384, 0.8),
    ("concatenation", 416, 0.9),
    ("base_model", 384, 0.5),
    ("stage_1", 416, 0.7),
)


def two_sources(limit: int, max_chars: int) -> dict[str, Any]:
    """The tiny recipe under the name that the page uses, with two sources and few texts."""
    raw = copy.deepcopy(TINY) | {"name": RECIPE}
    raw["corpus"]["sources"] = [
        {"name": package.lower(), "kind": "python_docs", "packages": [package], "limit": limit}
        for package in ("networkx", "SQLAlchemy")
    ]
    raw["corpus"]["clean"]["document"]["max_chars"] = max_chars
    return raw


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """`var/` after two runs up to `vector_stats`: the second has other texts, and a teacher that was fitted again."""
    root = tmp_path_factory.mktemp("asked")
    workspace = Workspace(root / "var")
    for run, raw in enumerate((two_sources(limit=200, max_chars=600), two_sources(limit=190, max_chars=300))):
        graph = Graph(read_recipe(write_recipe(root, raw)))
        runner = Runner(workspace, logging.getLogger("test"))
        for step in upstream(graph.vector_stats):
            with recorded(workspace, f"run{run}", step) as record:
                record.artefact = runner.make(step)
    rows = [
        {"model": model, "dimension": dim, "task": task, "type": task, "metric": "accuracy", "score": score}
        for model, dim, score in SCORED
        for task in ("Retrieval", "Classification")
    ]
    log = [
        {"stage": "stage_1", "step": step, "split": "dev", "term": "total", "value": 1 / (step + 1)} for step in (0, 1)
    ]
    for asset, table, content in (
        ("scores/stage_1", SCORES, rows),
        ("scores/stage_2", MODEL_SAMPLES, [{"model": "stage_2", "task": "Retrieval", "value": 0.5}]),
        ("retriever_scores/dense", QUERY_MEASURES, [{"model": "stage_1", "measure": "ndcg_at_10", "value": 0.5}]),
        ("retriever_scores/dense", RANKINGS, [{"model": "stage_1", "query": "q1", "document": "d1", "rank": 1}]),
        ("evaluation_tasks", TASKS, [{"task": "HeldOutRetrieval", "data": "held_out"}]),
        ("release_gate", VERDICTS, [{"requirement": "retention", "passed": True}]),
        ("stage_1", TRAINING_LOG, log),
        ("retriever/late", RETRIEVER_LOG, [{"stage": "retriever/late", "step": 0, "split": "dev", "term": "total"}]),
        ("contamination", CONTAMINATION, [{"task": "Retrieval", "rule": "equal", "verdict": "drop"}]),
        ("pairs", PAIRS, [{"query": "00", "positive": "01"}]),
        ("pairs", SCORED_PAIRS, [{"query": "00", "document": "01", "score": 0.5}]),
        ("pairs", PAIR_NEGATIVES, [{"query": "00", "negative": "02", "rank": 1}]),
        ("pairs", PAIR_FUNNEL, [{"source": "faq", "rule": "read", "pairs": 1}]),
        ("pairs", DROPPED_PAIRS, [{"source": "faq", "rule": "empty"}]),
        (
            "pair_scores/store",
            PAIR_SCORES,
            [CANDIDATE, CANDIDATE | {"origin": "mined", "document": "02", "score": 0.5}],
        ),
        ("mined_negatives", MINED_NEGATIVES, [{"query": "00", "negative": "02", "rank": 1}]),
        ("contamination_suspects", SUSPECTS, [{"task": "Retrieval", "cosine": 0.9}]),
        ("study", STUDY, [{"variant": "unchanged", "seed": 0, "score": 0.5}]),
    ):
        folder = workspace.current(RECIPE, asset)
        folder.mkdir(parents=True, exist_ok=True)
        table.write(folder, [dict.fromkeys(table.schema.names) | row for row in content])
    COSTS.append(workspace, "service", dict.fromkeys(COSTS.schema.names) | {"recipe": RECIPE, "tokens": 1200})
    Ledger(workspace, RECIPE).add(
        Entry("2026-01-05T03:00:00+00:00", RECIPE, "promoted", "200 new texts", {}, 200, 200, 70.0)
    )
    refresh_views(workspace)
    return workspace


def ask(workspace: Workspace, query: str) -> list[dict[str, Any]]:
    """The answer of the database, or of `connect` where the query reads vectors."""
    reads_vectors = "FROM vectors" in query
    opened = connect(workspace, RECIPE) if reads_vectors else duckdb.connect(str(workspace.statistics), read_only=True)
    with closing(opened) as connection:
        result = connection.execute(query)
        names = [column[0] for column in result.description]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def answer(workspace: Workspace, begins: str) -> list[dict[str, Any]]:
    """The answer to the one question that begins like this."""
    [query] = [query for title, query in QUESTIONS if title.startswith(begins)]
    return ask(workspace, query)


def test_the_page_answers_eleven_questions_and_shows_no_other_sql():
    assert len(QUESTIONS) == len({title for title, _ in QUESTIONS}) == PAGE.count("```sql") == 11


@pytest.mark.parametrize("query", [pytest.param(query, id=title) for title, query in QUESTIONS])
def test_a_question_of_the_page_has_an_answer(workspace: Workspace, query: str):
    rows = ask(workspace, query)
    assert rows
    assert all(any(value is not None for value in row.values()) for row in rows)


def test_the_page_names_every_view_and_its_columns_in_order(workspace: Workspace):
    with duckdb.connect(str(workspace.statistics), read_only=True) as connection:
        views = [row[0] for row in connection.execute("SHOW TABLES").fetchall()]
        expected = {view: connection.table(view).columns for view in views}
    assert {view: re.findall(r"`(\w+)`", columns) for view, columns in VIEW_ROWS} == expected


def test_every_view_has_rows_here_so_that_no_answer_is_empty(workspace: Workspace):
    for view, _ in VIEW_ROWS:
        assert ask(workspace, f"SELECT * FROM {view} LIMIT 1"), view


def test_the_most_anisotropic_teacher_and_source_come_first(workspace: Workspace):
    rows = answer(workspace, "Which teacher is the most anisotropic")
    assert {(row["teacher"], row["source"]) for row in rows} == {
        (teacher, source) for teacher in ("minilm", "lsa") for source in ("networkx", "sqlalchemy")
    }
    cosines = [row["mean_cosine"] for row in rows]
    assert cosines == sorted(cosines, reverse=True)


def test_dead_and_dominating_dimensions_are_found(workspace: Workspace):
    snapshot = Snapshot.open(workspace, RECIPE, current_snapshot(workspace, RECIPE))
    found = {row["teacher"]: row for row in answer(workspace, "Has a teacher dead")}
    for teacher, dims in zip(snapshot.layout.teachers, snapshot.layout.dims, strict=True):
        share = (snapshot.vectors(np.arange(len(snapshot)), [teacher]).astype(np.float64) ** 2).mean(axis=0)
        row = found[teacher]
        assert (row["dims"], row["largest"]) == (dims, share.argmax())
        assert sorted(row["dominating"] or []) == np.flatnonzero(share > 10 / dims).tolist()
        assert (row["dead"] or []) == np.flatnonzero(share < 1e-9).tolist() == ([127, 223, 319] if dims == 384 else [])


def test_drift_distinguishes_a_refitted_teacher_from_an_unchanged_one(workspace: Workspace):
    drift = {row["teacher"]: row for row in answer(workspace, "What changed between the last two snapshots")}
    assert [drift[teacher]["same_fingerprint"] for teacher in ("minilm", "lsa")] == [True, False]
    assert drift["minilm"]["linear_cka"] == 1
    for row in drift.values():
        assert row["rows_removed"] - row["rows_added"] == 400 - row["rows"]
        assert min(row["rows_added"], row["mean_shift"], row["changed_neighbours"]) > 0


def test_a_text_that_was_embedded_before_costs_the_second_run_nothing(workspace: Workspace):
    rows = answer(workspace, "Where did the time of each run go")
    assert [row["run_id"] for row in rows] == ["run1"] * 7 + ["run0"] * 7
    embedded = {row["run_id"]: row["embedded"] for row in rows if row["asset"] == "teacher_vectors/minilm"}
    assert embedded["run0"] == 400
    assert embedded["run1"] == answer(workspace, "What changed between the last two snapshots")[0]["rows_added"]
    for run in ("run0", "run1"):
        assert sum(row["percent"] for row in rows if row["run_id"] == run) == pytest.approx(100, abs=0.5)


def test_the_last_snapshot_is_the_current_one_and_wrote_only_what_was_new(workspace: Workspace):
    first, last = answer(workspace, "Which snapshots are there")
    assert [first["current"], last["current"]] == [False, True]
    assert first["rows"] == first["rows_written"] == 400
    assert 0 < last["rows_written"] < 60 < last["rows"] == 380
    assert (last["teachers"], last["weights"], last["centred"]) == (["minilm", "lsa"], [1.0, 0.5], [])
    assert all(0 < cosine < NARROW for cosine in last["mean_cosines"])


def test_scores_are_compared_with_the_concatenation(workspace: Workspace):
    rows = answer(workspace, "How much of the teachers' scores")
    kept = {row["model"]: row["percent_of_concatenation"] for row in rows}
    assert kept == {"concatenation": 100, "teacher/minilm": 88.9, "stage_1": 77.8, "base_model": 55.6}


def test_near_duplicates_are_pairs_of_the_two_splits_nearest_first(workspace: Workspace):
    snapshot = Snapshot.open(workspace, RECIPE, current_snapshot(workspace, RECIPE))
    test, train = (snapshot.vectors(snapshot.rows(split), ["minilm"]).astype(np.float64) for split in ("test", "train"))
    expected = np.sort((test @ train.T).ravel())[::-1][:20]
    rows = answer(workspace, "Has a test text a near-duplicate")
    np.testing.assert_allclose([row["cosine"] for row in rows], expected, atol=2e-3)


def test_the_python_of_the_page_runs_as_it_is_printed(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(workspace.root.parent)
    for block in PYTHON:
        exec(compile(block, "docs/sql.md", "exec"), {})  # noqa: S102 (our own page)
    statistics, sections, nearest = re.findall(r"┌.*?└[^\n]*", capsys.readouterr().out, re.DOTALL)
    assert len(PYTHON) == 2
    assert re.findall(r"^│ (\w+) +│ +380 │", statistics, re.MULTILINE) == ["minilm", "lsa", "concatenation"]
    pairs = re.findall(r"^│ (\w+) +│ (\w+) +│ +(\d+) │ +([\d.-]+) │$", sections, re.MULTILINE)
    assert {(a, b): float(cosine) for a, b, _, cosine in pairs} == pytest.approx(mean_cosines(workspace), abs=2e-3)
    cosines = [float(cosine) for cosine in re.findall(r"^│ +([\d.]+) │", nearest, re.MULTILINE)]
    assert len(cosines) == 5
    assert 1 >= cosines[0] >= cosines[-1] > 0.1
    assert cosines == sorted(cosines, reverse=True)


def mean_cosines(workspace: Workspace) -> dict[tuple[str, str], float]:
    """Mean cosine of different texts whose id is below '2', within and between the two sections."""
    snapshot = Snapshot.open(workspace, RECIPE, current_snapshot(workspace, RECIPE))
    texts, block = snapshot.read(np.arange(len(snapshot)), ["id", "section"], ["minilm"])
    chosen = np.array([key < "2" for key in texts["id"]])
    vectors, sections = block[chosen].astype(np.float64), np.array(texts["section"])[chosen]
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, np.nan)
    names = sorted(set(sections))
    return {(a, b): float(np.nanmean(cosines[sections == a][:, sections == b])) for a in names for b in names if a <= b}
