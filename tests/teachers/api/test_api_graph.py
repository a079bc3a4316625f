"""A whole graph with a teacher that costs money: what is sent, what is left out, what is accounted for."""

import copy
import logging
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from stella_assets.core.runner import Runner
from stella_assets.core.step import upstream
from stella_assets.corpus.tables import DROPPED
from stella_assets.lineage.plan import plan, size_of
from stella_assets.recipe import Graph
from stella_assets.recipe.read import parse_recipe
from stella_assets.storage.views import refresh_views
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.api.canaries import CANARIES
from stella_assets.teachers.audit import AuditedRecipe, Auditor
from tests.api_server import StandIn
from tests.faults.home import RECIPE, Project
from tests.teachers.api.conftest import DIM, compute_in, settings


@pytest.fixture
def graph(tmp_path: Path, address: str, stand_in: StandIn) -> Graph:
    stand_in.marker = "number 7 of"
    return graph_of(tmp_path, address)


def graph_of(tmp_path: Path, address: str, **more: Any) -> Graph:
    project = Project(tmp_path)
    project.begin()
    raw: dict[str, Any] = copy.deepcopy(RECIPE)
    raw["teachers"] = [settings(address, unit_rows=32, **more), raw["teachers"][1]]
    raw["release"]["dimension"] = DIM + 8
    raw["corpus"]["semantic"] = {"teacher": "far", "duplicates": 0.99}
    return Graph(parse_recipe(raw, tmp_path / "recipes" / "kills.yaml"))


def test_a_run_sends_each_text_once_and_leaves_out_what_is_refused(
    graph: Graph, stand_in: StandIn, workspace: Workspace, log: logging.Logger
) -> None:
    runner = Runner(workspace, log, compute_in(workspace))
    for step in upstream(graph.stages[0], graph.vector_stats, order=False):
        runner.make(step)
    corpus = runner.read(graph.corpus)
    texts = len(corpus)
    assert stand_in.counts.texts == texts - 1 + len(CANARIES)
    # The tasks' texts would be paid: neither the teacher nor the concatenation is scored.
    assert {"teacher/far", "concatenation"}.isdisjoint(graph.scores)
    made = runner.require(graph.teachers["far"])
    dropped = pq.read_table(made.folder / "dropped.parquet").to_pylist()
    assert [(row["rule"], row["source"]) for row in dropped] == [("refused by teacher", "texts")]
    assert "flagged by a filter" in dropped[0]["detail"]
    assert "number 7 of" in dropped[0]["excerpt"]
    refresh_views(workspace, [DROPPED])
    with duckdb.connect(str(workspace.statistics), read_only=True) as views:
        told = views.execute("SELECT recipe, id FROM dropped WHERE rule = 'refused by teacher'").fetchall()
    assert told == [("kills", dropped[0]["id"])]
    (check,) = [check for check in made.manifest.checks if check.name == "every_text_was_taken"]
    assert not check.passed
    metrics = made.manifest.metrics
    assert (metrics["texts"], metrics["embedded_now"], metrics["refused"]) == (texts, texts - 1, 1)
    cost = metrics["cost"]
    assert cost["texts"] == texts - 1
    # All but the canaries, each of which has some tokens.
    assert 0 < cost["tokens"] < stand_in.counts.tokens - len(CANARIES)
    assert cost["dollars"] == pytest.approx(cost["tokens"] * 0.5 / 1e6, abs=1e-6)
    snapshot = runner.read(graph.concatenation)
    assert len(snapshot) == texts - 1
    (refused,) = snapshot.left_out
    # Row by row it is the corpus without that text, in every column.
    rows = snapshot.of_corpus(corpus).take(np.arange(len(snapshot)), ["id", "text", "split"]).to_pydict()
    assert snapshot.take(np.arange(len(snapshot)), ["id", "text", "split"]) == rows
    assert dropped[0]["id"] == corpus.take(np.array([refused]), ["id"]).column("id")[0].as_py()
    # Nothing is sent by what looks at the vectors afterwards.
    sent = stand_in.counts.requests
    audited = [AuditedRecipe("kills", graph.corpus, graph.teachers)]
    audit = Auditor(audited, Runner(workspace, log, compute_in(workspace))).verify()
    assert audit.damages == []
    assert [each.teacher for each in audit.comparisons] == ["lsa"]
    assert stand_in.counts.requests == sent
    paid = Auditor(audited, Runner(workspace, log, compute_in(workspace)), paid=5).verify()
    assert [(each.teacher, each.sampled) for each in paid.comparisons if each.teacher == "far"] == [("far", 5)]
    assert stand_in.counts.texts == texts - 1 + len(CANARIES) + 5


def test_texts_of_tasks_are_in_the_plan_of_a_teacher_that_is_scored(
    tmp_path: Path,
    address: str,
    stand_in: StandIn,
    workspace: Workspace,
    log: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = graph_of(tmp_path, address, evaluate=True)
    runner = Runner(workspace, log, compute_in(workspace))
    (before,) = [each for each in plan(graph, runner) if each.asset == "scores/teacher_far"]
    assert (before.money, before.charges) == (None, "unknown, as the corpus is not made yet")
    for step in upstream(graph.tasks, graph.teachers["far"]):
        runner.make(step)
    (planned,) = [each for each in plan(graph, runner) if each.asset == "scores/teacher_far"]
    corpus = runner.require(graph.corpus)
    read = runner.read(graph.corpus).table(["text"]).column("text").to_pylist()
    assert corpus.manifest.metrics["mean_bytes"] == round(sum(len(text.encode()) for text in read) / len(read), 1)
    texts, tokens = stand_in.counts.texts, stand_in.counts.tokens
    runner.make(graph.scores["teacher/far"])
    sent = stand_in.counts.texts - texts
    assert 0 < sent <= planned.texts <= 5 * sent
    assert 0 < stand_in.counts.tokens - tokens <= planned.tokens
    assert planned.money == pytest.approx(planned.tokens * 0.5 / 1e6)
    # Corpora of older versions know the characters alone, of which each has at most four bytes.
    monkeypatch.delitem(corpus.manifest.metrics, "mean_bytes")
    older = size_of(graph, runner)
    assert older is not None
    assert older.mean_bytes == 4 * corpus.manifest.metrics["mean_chars"]
