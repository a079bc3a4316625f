"""A retriever's folder does what its card says, and is not made where the recipe asks for more than it shows."""

import json
import logging
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from stella_assets.core.config import ModelSource
from stella_assets.core.devices import Compute
from stella_assets.core.runner import Runner
from stella_assets.core.step import BuildContext, Result, Step
from stella_assets.evaluation.ranking.steps import RankingScores
from stella_assets.evaluation.tables import QUERY_MEASURES, SCORES
from stella_assets.recipe import parse_recipe
from stella_assets.recipe.preflight import check_recipe
from stella_assets.release.retrievers.gate import RetrieverGateError
from stella_assets.release.retrievers.inputs import RetrieverReleaseInputs
from stella_assets.release.retrievers.publish import retriever_release_step
from stella_assets.release.retrievers.run_code import CardCodeError, scores_of_code
from stella_assets.release.settings import ReleaseSettings
from stella_assets.storage.workspace import Workspace
from stella_assets.students.retriever import SavedRetriever
from stella_assets.teachers.terms import Terms
from stella_assets.training.retrievers import RETRIEVERS
from tests.evaluation.ranking.test_comparison import rankings, trained
from tests.models import TEXTS
from tests.training.retrievers.test_run import LATE, with_retrievers

RERANKER = {
    "kind": "reranker",
    "max_length": 48,
    **{"losses": {"bce": 1}, "candidates": 4, "batch_size": 4, "steps": 6, "learning_rate": 1e-4},
}
KINDS: dict[str, dict[str, Any]] = {"multi_vector": LATE, "reranker": RERANKER}
GAINED = 5.0
"""nDCG@10 points of the retrievers over the dense student here."""


class FewTexts:
    """The part of a corpus that a release reads."""

    def table(self, columns: list[str]) -> Any:
        rows = [{"id": f"{n:032x}", "text": text, "split": "test", "role": "document"} for n, text in enumerate(TEXTS)]
        return pl.DataFrame(rows).select(columns).to_arrow()

    def take(self, positions: np.ndarray, columns: list[str]) -> Any:
        return self.table(columns).take(positions)

    def licence_counts(self) -> list[tuple[str, int]]:
        return [("CC-BY-4.0", 3)]


class Tasks:
    def rows(self) -> list[dict[str, str]]:
        return [{"task": "Search", "type": "Retrieval"}, {"task": "Answers", "type": "Reranking"}]


def fixed(name: str, content: Any) -> Step[Any]:
    return Step("tiny", name, "1", {}, build=lambda _context: Result(), read=lambda _artefact, _workspace: content)


def scores_step(name: str, *models: tuple[str, float]) -> Step[RankingScores]:
    def build(context: BuildContext) -> Result:
        frames = [rankings(model, mean, 60, 0.0, 0) for model, mean in models]
        measures = pl.concat(frames).filter(pl.col("task") != "Parts")
        QUERY_MEASURES.write(context.folder, measures.select(QUERY_MEASURES.schema.names).to_arrow())
        row = {"model": models[-1][0], "task": "Search", "type": "Retrieval", "metric": "ndcg_at_10", "score": 0.5}
        SCORES.write(context.folder, [dict.fromkeys(SCORES.schema.names) | row | {"data": "custom", "revision": "1"}])
        return Result(metrics=trained(models[-1][0], 0.5))

    return Step("tiny", f"retriever_scores/{name}", "1", {}, build=build, read=RankingScores.read)


def release_of(given: dict[str, Any], model: Path, **changes: Any) -> Step[Path]:
    settings = RETRIEVERS[given["kind"]].model_validate({**given, "name": "late"})

    def build(context: BuildContext) -> Result:
        made = settings.initialise(ModelSource(model=str(model)), None, 0, context.compute)
        made.save(context.folder / "model")
        return Result(metrics={"parameters": 1_500_000, "lists_train": 1234})

    values: dict[str, Any] = {
        "description": "Finds answers.",
        "recipe_digest": "0" * 32,
        "release": ReleaseSettings(dimension=8, licence="Apache-2.0"),
        "settings": settings,
        "teachers": (),
        "terms": {},
        "sources": (),
        "corpus": fixed("corpus", FewTexts()),
        "tasks": fixed("evaluation_tasks", Tasks()),
        "retriever": Step(
            "tiny",
            "retriever/late",
            "1",
            {},
            build=build,
            read=lambda artefact, _workspace: SavedRetriever(artefact.folder / "model", settings),
        ),
        "dense": scores_step("dense", ("base_model", 0.4), ("stage_1", 0.5)),
        "scores": scores_step("late", ("retriever/late", 0.5 + GAINED / 100)),
    }
    return retriever_release_step("tiny", inputs=RetrieverReleaseInputs(**{**values, **changes}))


def make(step: Step[Path], workspace: Workspace) -> Any:
    runner = Runner(workspace, logging.getLogger("test"), Compute("cpu", threads=1))
    for each in step.dependencies:
        runner.make(each)
    return runner.make(step)


def terms(distribution: str) -> dict[str, Terms]:
    url = "https://example.com/terms"
    return {"judge": Terms.model_validate({"distribution": distribution, "url": url, "read_on": "2026-11-27"})}


@pytest.fixture(scope="module")
def released(published: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Workspace, step and artefact of an internal release, by kind of retriever; each is made once."""
    internal = ReleaseSettings(dimension=8, licence="Apache-2.0", distribution="internal")

    @cache
    def of(kind: str) -> tuple[Workspace, Step[Path], Any]:
        given = {**KINDS[kind], "min_gain": {"Retrieval": 4.5}}
        step = release_of(given, published("bert"), terms=terms("internal"), release=internal)
        workspace = Workspace(tmp_path_factory.mktemp(kind))
        return workspace, step, make(step, workspace)

    return of


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_of_the_card_gives_the_scores_of_the_retriever(kind: str, released: Callable[[str], Any]):
    workspace, step, artefact = released(kind)
    card = (artefact.folder / "README.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace("path/to/this/folder", str(artefact.folder)), names)  # noqa: S102 (the card's own code)
    queries, documents = names["queries"], names["documents"]
    pairs = [(query, document) for query in queries for document in documents]
    [retriever] = [each for each in step.dependencies if each.name == "retriever/late"]
    loaded = retriever.read(make(retriever, workspace), workspace).load(Compute("cpu"))
    expected = loaded.score_pairs([query for query, _ in pairs], [document for _, document in pairs])
    np.testing.assert_allclose(np.asarray(names["scores"]).ravel(), expected, rtol=1e-4)
    assert artefact.manifest.metrics["ndcg_gain of Retrieval"] == pytest.approx(GAINED)


def test_the_card_tells_scores_licences_and_lineage(released: Callable[[str], Any]):
    _, _, artefact = released("multi_vector")
    card = (artefact.folder / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.removeprefix("---\n").partition("\n---\n")[0])
    assert front["license"] == "apache-2.0"
    assert front["tags"] == [
        *["sentence-transformers", "multi-vector", "late-interaction", "distillation", "mteb", "internal"]
    ]
    assert front["model-index"][0]["results"][0]["metrics"] == [{"type": "ndcg_at_10", "value": 50.0}]
    assert "**Internal: this model is not to be published or passed on.** The terms below say why." in card
    assert "It has 1.5 million parameters and learned from 1,234 lists." in card
    assert "retriever/late ranks better than stage_1 alone on 60 queries of Retrieval tasks: +5.00" in card
    assert "- Asked of this release: min_gain, Retrieval: 5 (95%: 5 to 5), limit 4.5" in card
    assert "CC-BY-4.0" in card
    assert "https://example.com/terms" in card
    lineage = json.loads((artefact.folder / "lineage.json").read_text(encoding="utf-8"))
    assert {"corpus", "retriever/late", "retriever_scores/dense"} <= {each["asset"] for each in lineage.values()}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"min_gain": {"Retrieval": 5.5}}, r"may not be released. min_gain, Retrieval: 5 .*limit 5.5, short by 0.5"),
        ({"min_gain": {"Reranking": 6}}, "min_gain, Reranking: 5 "),
    ],
)
def test_a_retriever_that_gained_too_little_is_not_released(
    changes: dict[str, Any], why: str, published: Callable[[str], Path], workspace: Workspace
):
    with pytest.raises(RetrieverGateError, match=why):
        make(release_of({**LATE, **changes}, published("bert")), workspace)
    assert not list(workspace.artefacts.glob("retriever_release/late/*/manifest.json"))


def test_a_public_release_needs_terms_that_allow_it(published: Callable[[str], Path], workspace: Workspace):
    with pytest.raises(RetrieverGateError, match=r"terms, judge: .*https://example.com/terms"):
        make(release_of(LATE, published("bert"), terms=terms("internal")), workspace)


def test_a_gain_on_tasks_that_the_recipe_lacks_is_refused_before_anything_is_made(
    raw: dict[str, Any], tmp_path: Path, workspace: Workspace
):
    raw = with_retrievers(raw, tmp_path, {**LATE, "min_gain": {"Reranking": 1}})
    recipe = parse_recipe(raw, tmp_path / "tiny.yaml")
    with pytest.raises(RetrieverGateError, match=r"retriever 'late': min_gain 'Reranking': no task is"):
        check_recipe(recipe, workspace)


def test_what_a_retriever_must_show_does_not_train_it_again(raw: dict[str, Any], tmp_path: Path):
    from stella_assets.recipe import Graph

    settings = []
    for changes in ({}, {"min_gain": {"Retrieval": 1}}):
        made = with_retrievers(json.loads(json.dumps(raw)), tmp_path, {**LATE, **changes})
        graph = Graph(parse_recipe(made, tmp_path / "tiny.yaml"))
        settings.append([dict(graph.retrievers["late"].settings), dict(graph.retriever_releases["late"].settings)])
    assert settings[0][0] == settings[1][0]
    assert settings[0][1] != settings[1][1]


def test_code_that_fails_is_told_with_its_error(tmp_path: Path):
    with pytest.raises(CardCodeError, match="ModuleNotFoundError: No module named 'nowhere'"):
        scores_of_code("import nowhere", tmp_path, ["a"], ["b"], tmp_path)
