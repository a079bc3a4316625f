"""Candidates of queries, and their scores out of the store."""

import numpy as np
import polars as pl
import pytest

from stella_assets.core.step import upstream
from stella_assets.corpus.text import text_id
from stella_assets.pipelines.views import connect
from stella_assets.recipe import Graph, parse_recipe
from stella_assets.recipe.read import RecipeError
from stella_assets.teachers.scorers.candidates import candidate_pairs
from stella_assets.teachers.scorers.kinds import stored
from stella_assets.teachers.scorers.kinds.stored import StoredScorer
from tests.teachers.scorers.conftest import answer, other, query


def scorer(**settings: object) -> StoredScorer:
    return StoredScorer.model_validate({"name": "store", "kind": "stored", **settings})


def test_the_candidates_of_a_query_are_its_answers_then_its_negatives_each_once(world):
    pairs, mined = (world.steps[name] for name in ("pairs", "mined_negatives"))
    tables = pairs.read(world.runner.make(pairs), world.workspace)
    table = candidate_pairs(tables, mined.read(world.runner.make(mined), world.workspace))
    first = table.filter(pl.col("query") == text_id(query(1)))
    assert first.select("document", "split", "origin", "rank").rows() == [
        (text_id(answer(1)), "train", "positive", 1),
        (text_id(other(1)), "train", "stated", 2),
        (text_id(answer(2)), "train", "mined", 3),
        (text_id(other(2)), "train", "mined", 4),
    ]
    assert table.equals(table.sort("query", "rank"))
    # Queries 3 and 7 are test queries, and nothing learns from them.
    assert set(table["query"]) == {text_id(query(n)) for n in (0, 1, 2, 4, 5, 6)}
    without = candidate_pairs(tables)
    assert set(without["origin"]) == {"positive", "stated"}


@pytest.mark.parametrize("block", [1, 5, 4096])
def test_stored_scores_are_the_cosines_of_stored_vectors(world, monkeypatch, block):
    monkeypatch.setattr(stored, "BLOCK_PAIRS", block)
    table, _ = world.score(scorer(teacher="two"))
    for row in table.iter_rows(named=True):
        a, b = (world.vectors[row[side]]["two"].astype(np.float64) for side in ("query", "document"))
        assert row["score"] == pytest.approx(a @ b, abs=1e-12)
    both, _ = world.score(scorer())
    for row in both.iter_rows(named=True):
        # Each teacher's vector is of unit norm before its weight: 1 and 2.
        cosine, weights = 0.0, {"one": 1, "two": 2}
        for name, weight in weights.items():
            a, b = (world.vectors[row[side]][name].astype(np.float64) for side in ("query", "document"))
            cosine += weight**2 * (a @ b) / np.linalg.norm(a) / np.linalg.norm(b)
        assert row["score"] == pytest.approx(cosine / 5, abs=1e-6)
    assert both.columns == ["query", "document", "score", "split", "origin", "rank"]


def test_the_figures_of_scores_say_what_they_are_worth(world):
    table, artefact = world.score(scorer())
    metrics = artefact.manifest.metrics
    assert metrics["pairs"] == len(table) == 6 * 4
    assert (metrics["queries"], metrics["lists"], metrics["equal_lists"], metrics["left_out"]) == (6, 6, 0, {})
    best = table.sort("score", descending=True).group_by("query").first()
    assert metrics["answer_first"] == pytest.approx((best["origin"] == "positive").mean())
    with connect(world.workspace, "tiny") as connection:
        rows = connection.execute("SELECT scorer, count(*) FROM pair_scores GROUP BY scorer").fetchall()
    assert rows == [("store", 24)]


def test_a_recipe_names_scorers_once_and_of_teachers_that_it_has(raw, tmp_path):
    def recipe(*scorers: dict[str, object]):
        return parse_recipe({**raw, "pair_scores": list(scorers)}, tmp_path / "tiny.yaml")

    store = {"name": "store", "kind": "stored"}
    with pytest.raises(RecipeError, match="pair_scores are of pairs of texts, and no source gives any"):
        recipe(store)
    before = parse_recipe(raw, tmp_path / "tiny.yaml").digest
    assert recipe().digest == before
    raw["corpus"]["sources"][0]["pairs"] = "first_sentence"
    with pytest.raises(RecipeError, match="two of pair_scores are named 'store'"):
        recipe(store, store)
    with pytest.raises(RecipeError, match=r"pair_scores\.0\.teacher names 'other'; the recipe has minilm, lsa"):
        recipe({**store, "teacher": "other"})
    graph = Graph(recipe(store))
    (step,) = graph.pair_scores.values()
    assert step.name == "pair_scores/store"
    assert {graph.pairs, graph.corpus, graph.concatenation} <= set(upstream(step))
    assert step in graph.steps
