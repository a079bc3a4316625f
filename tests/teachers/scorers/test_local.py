"""Scores of models that run here: each pair is scored once, by the weights that the recipe names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from stella_assets.core.errors import UserError
from stella_assets.core.step import Result, Step, upstream
from stella_assets.corpus.text import text_id
from stella_assets.recipe import Graph, parse_recipe
from stella_assets.recipe.read import RecipeError
from stella_assets.storage.database import table_names
from stella_assets.storage.errors import VectorError
from stella_assets.teachers.audit import Auditor
from stella_assets.teachers.garbage import collect_garbage, live_vectors
from stella_assets.teachers.repair import repair
from stella_assets.teachers.scorers import Scoring, local
from stella_assets.teachers.scorers.kinds.cross_encoder import CrossEncoderScorer, LoadedCrossEncoder
from stella_assets.teachers.scorers.kinds.retriever import RetrieverScorer
from tests.teachers.scorers.conftest import QUERIES, World, answer, other, query

TEXTS = {text_id(text): text for n in range(QUERIES) for text in (query(n), answer(n), other(n))}


@pytest.fixture(scope="module")
def reranker(published: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with a head of one number."""
    return with_head(published("bert"), tmp_path_factory.mktemp("reranker"), 1)


def with_head(encoder: Path, folder: Path, labels: int) -> Path:
    from sentence_transformers import CrossEncoder

    torch.manual_seed(0)
    CrossEncoder(str(encoder), num_labels=labels).save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"


def scorer(model: Path, **settings: Any) -> CrossEncoderScorer:
    raw = {"name": "ce", "kind": "cross_encoder", "model": str(model), "licence": "MIT", "max_length": 48, **settings}
    return CrossEncoderScorer.model_validate({"dtype": "float32", **raw})


def counted(monkeypatch: pytest.MonkeyPatch, fails_at: int | None = None) -> list[int]:
    """How many pairs went through the model, in each unit."""
    units: list[int] = []
    score = LoadedCrossEncoder.score_pairs

    def counts(self: LoadedCrossEncoder, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        if len(units) == fails_at:
            raise InterruptedError
        units.append(len(queries))
        return score(self, queries, documents)

    monkeypatch.setattr(LoadedCrossEncoder, "score_pairs", counts)
    return units


def test_scores_are_the_logits_that_sentence_transformers_predicts(world: World, reranker: Path):
    from sentence_transformers import CrossEncoder

    table, artefact = world.score(scorer(reranker))
    pairs = [(TEXTS[row["query"]], TEXTS[row["document"]]) for row in table.iter_rows(named=True)]
    model = CrossEncoder(str(reranker), max_length=48, local_files_only=True)
    expected = model.predict(pairs, activation_fn=torch.nn.Identity())
    assert table["score"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)
    assert artefact.manifest.metrics["scored_now"] == len(table) == 24
    short, _ = world.score(scorer(reranker, max_length=12))
    assert not np.allclose(short["score"], table["score"])


def test_no_pair_is_scored_twice_by_another_recipe_or_after_a_stop(world, reranker, monkeypatch):
    monkeypatch.setattr(local, "UNIT_PAIRS", 10)
    with monkeypatch.context() as patch:
        first = counted(patch, fails_at=2)
        with pytest.raises(InterruptedError):
            world.score(scorer(reranker))
    assert first == [10, 10]
    units = counted(monkeypatch)
    table, _ = world.score(scorer(reranker))
    assert units == [4]
    again, artefact = world.score(scorer(reranker, name="again", batch_size=7, licence="other"), recipe="other")
    assert units == [4]
    assert again.equals(table)
    assert (artefact.manifest.metrics["scored_now"], artefact.manifest.metrics["pairs_per_second"]) == (0, None)


def test_a_model_without_a_trained_head_or_with_several_numbers_is_refused(world, reranker, published, tmp_path):
    with pytest.raises(UserError, match=r"it lacks \d+ weights \(.*classifier"):
        world.score(scorer(published("bert")))
    with pytest.raises(UserError, match="it gives 3 numbers for a pair of texts, and a score is one"):
        world.score(scorer(with_head(published("bert"), tmp_path, 3)))
    with pytest.raises(UserError, match="no such model folder"):
        scorer(tmp_path / "nothing").check()
    scorer(reranker).check()
    assert scorer(reranker).external_versions(world.runner.compute).keys() == {"model", "dtype"}
    assert table_names(world.workspace) == ["tiny.concatenated_vectors"]


def test_scores_that_are_not_numbers_are_not_stored(world, reranker, monkeypatch):
    monkeypatch.setattr(LoadedCrossEncoder, "score_pairs", lambda _self, q, _d: np.full(len(q), np.nan, np.float32))
    with pytest.raises(VectorError, match="24 numbers are NaN or infinity"):
        world.score(scorer(reranker))


def test_stored_scores_are_kept_as_long_as_an_artefact_needs_them(world, reranker):
    _, artefact = world.score(scorer(reranker))
    (name,) = [name for name in table_names(world.workspace) if name.startswith("pair_scores.")]
    needed = live_vectors([artefact.folder])
    assert needed.scores == {name}
    collect_garbage(world.workspace, lambda: needed, dry_run=False, superseded=False)
    assert name in table_names(world.workspace)
    collect_garbage(world.workspace, lambda: live_vectors([], in_use=True), dry_run=False, superseded=False)
    assert name in table_names(world.workspace)
    collect_garbage(world.workspace, lambda: live_vectors([]), dry_run=False, superseded=False)
    assert name not in table_names(world.workspace)


@pytest.mark.parametrize("repaired", [False, True])
def test_damaged_scores_are_found_taken_out_and_computed_again(world, reranker, monkeypatch, repaired):
    monkeypatch.setattr(local, "UNIT_PAIRS", 10)
    table, _ = world.score(scorer(reranker))
    (name,) = [name for name in table_names(world.workspace) if name.startswith("pair_scores.")]
    file = min(
        (world.workspace.root / "lancedb" / f"{name}.lance" / "data").iterdir(), key=lambda path: path.stat().st_size
    )
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 255
    file.write_bytes(content)
    audit = Auditor([], world.runner).verify()
    assert [damage.table for damage in audit.damages] == [name]
    if repaired:
        (said,) = repair(audit, [], world.runner)
        assert "took out units of 4 scores" in said
        assert not Auditor([], world.runner).verify().damages
    units = counted(monkeypatch)
    again, _ = world.score(scorer(reranker, name="again"))
    assert units == [4]
    assert again["score"].to_list() == pytest.approx(table["score"].to_list(), abs=1e-6)


def test_pairs_with_a_text_that_the_corpus_lacks_are_counted(world, reranker, log):
    ids = [text_id(answer(1)), text_id("a text from nowhere")]
    pairs = pl.DataFrame({"query": [text_id(query(1))] * 2, "document": ids})
    scoring = Scoring(world.runner.read(world.steps["corpus"]), world.workspace, world.runner.compute, log)
    scored = scorer(reranker).score(pairs, scoring)
    assert np.isnan(scored.scores_N).tolist() == [False, True]
    assert scored.left_out == {"a text that the corpus does not have": 1}


class Lengths:
    """In place of a trained retriever: the letters of the document."""

    def load(self, _compute: Any) -> "Lengths":
        return self

    def score_pairs(self, _queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        return np.array([len(document) for document in documents], dtype=np.float32)


def test_a_retriever_of_the_recipe_scores_and_another_one_is_another_scorer(world: World):
    def retriever(version: str) -> Step[Any]:
        def build(context: Any) -> Result:
            (context.folder / "model").write_text(version)
            return Result()

        return Step("tiny", "retriever/late", version, {}, build, read=lambda _artefact, _place: Lengths())

    late = RetrieverScorer.model_validate({"name": "late", "kind": "retriever", "retriever": "late"})
    steps = [retriever("1"), retriever("2")]
    for step in steps:
        world.runner.make(step)
        table, artefact = world.score(late, retriever=step)
        assert table["score"].to_list() == [len(TEXTS[document]) for document in table["document"]]
        assert artefact.manifest.metrics["scored_now"] == 24


def test_a_retriever_is_trained_before_those_that_learn_from_its_scores(raw: dict[str, Any], tmp_path: Path):
    raw["corpus"]["sources"][0]["pairs"] = "first_sentence"
    train = {"steps": 2, "learning_rate": 1e-4}
    late = {"name": "late", "kind": "multi_vector", "losses": {"contrastive": 1}, **train}
    ranker = {"name": "ranker", "kind": "reranker", "scores": "late", "losses": {"mse": 1}, **train}
    raw["pair_scores"] = [{"name": "late", "kind": "retriever", "retriever": "late"}]
    raw["retrievers"] = [ranker, late]
    graph = Graph(parse_recipe(raw, tmp_path / "tiny.yaml"))
    assert graph.retrievers["late"] in upstream(graph.pair_scores["late"])
    assert graph.pair_scores["late"] in graph.retrievers["ranker"].dependencies
    raw["pair_scores"][0]["retriever"] = "ranker"
    with pytest.raises(RecipeError, match=r"learns from scores that it gives itself \(ranker -> ranker\)"):
        parse_recipe(raw, tmp_path / "tiny.yaml")
    raw["pair_scores"][0]["retriever"] = "other"
    with pytest.raises(RecipeError, match=r"pair_scores\.0\.retriever names 'other'; the recipe has retrievers ranker"):
        parse_recipe(raw, tmp_path / "tiny.yaml")
