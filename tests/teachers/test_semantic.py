"""Texts that mean the same: found by a teacher's vectors, left out of training or listed, never silently."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from stella_assets.core.devices import Compute
from stella_assets.core.runner import Runner
from stella_assets.core.step import Artefact, upstream
from stella_assets.recipe import Recipe, RecipeError, read_recipe
from stella_assets.recipe.graph import Graph
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers import similarity
from stella_assets.teachers.similarity import most_similar_before, similar_pairs
from tests.conftest import write_recipe
from tests.corpus.conftest import different

CPU = Compute("cpu", threads=1)
PARAPHRASES = [
    ("A man is playing a guitar on the big stage.", "On the big stage, a man plays the guitar."),
    ("How do I reset the password of my account?", "What is the way to reset my account password?"),
    ("Scientists found a new species of frog in Peru.", "In Peru, researchers discovered a new frog species."),
    ("The doctor told her to drink more water every day.", "Her doctor said she should drink more water daily."),
]
QUESTION = "Which gas do plants take in from the air for photosynthesis?"
ASKED_OTHERWISE = "For photosynthesis, what gas do plants absorb from the air?"


def clustered(texts: int, dim: int = 32) -> np.ndarray:
    """Unit vectors, many of them near another one, some very near."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((texts // 10, dim))
    vectors = centres[random.integers(len(centres), size=texts)] + random.uniform(0, 1, (texts, 1)) * (
        random.standard_normal((texts, dim))
    )
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_up_to_a_size_every_pair_is_compared():
    vectors, order = clustered(3000), np.random.default_rng(1).permutation(3000)
    cosines, places = most_similar_before(lambda rows: vectors[rows], order, CPU)
    all_pairs = np.tril(vectors[order] @ vectors[order].T, -1) + np.triu(np.full((3000, 3000), -1.0))
    np.testing.assert_allclose(cosines[1:], all_pairs.max(axis=1)[1:], atol=1e-5)
    assert (cosines[0], (places < np.arange(3000))[1:].all()) == (-1, True)


@pytest.mark.parametrize(("exact", "least"), [(400, 0.97), (60, 0.9)])
def test_above_it_nearly_all_copies_share_a_pivot(exact: int, least: float, monkeypatch):
    vectors, order = clustered(3000), np.random.default_rng(1).permutation(3000)
    exact_cosines, _ = most_similar_before(lambda rows: vectors[rows], order, CPU)
    monkeypatch.setattr(similarity, "EXACT", exact)
    monkeypatch.setattr(similarity, "BLOCK", 50)
    cosines, places = most_similar_before(lambda rows: vectors[rows], order, CPU)
    found = cosines >= 0
    np.testing.assert_allclose(
        cosines[found], (vectors[order][found] * vectors[order][places[found]]).sum(axis=1), atol=1e-5
    )
    alike = exact_cosines >= 0.9
    assert alike.sum() > 300
    assert (cosines[alike] >= 0.9).mean() > least
    assert (cosines <= exact_cosines + 1e-5).all()


def test_similar_pairs_are_all_pairs_above_the_cosine_and_the_best_of_each(monkeypatch):
    monkeypatch.setattr(similarity, "BLOCK", 7)
    texts, others = clustered(500), clustered(520)[490:]
    everything = similar_pairs(iter([texts[:200], texts[200:]]), others, 0.7, 500, CPU)
    cosines = texts @ others.T
    assert {(pair["text"], pair["other"]) for pair in everything} == set(zip(*np.nonzero(cosines >= 0.7), strict=True))
    best = similar_pairs(iter([texts]), others, 0.7, 2, CPU)
    for other in np.unique(best["other"]):
        mine = best[best["other"] == other]
        expected = np.sort(cosines[cosines[:, other] >= 0.7, other])[::-1][:2]
        np.testing.assert_allclose(mine["cosine"], expected, atol=1e-5)


@pytest.fixture
def recipe(tmp_path: Path, raw: dict[str, Any]) -> Recipe:
    """Two sources; the second paraphrases the first."""
    for name, side in (("first", 0), ("second", 1)):
        lines = [pair[side] for pair in PARAPHRASES] + [different(100 * side + i) for i in range(60)]
        (tmp_path / f"{name}.txt").write_text("\n".join([*lines, *([ASKED_OTHERWISE] if side else [])]))
    (tmp_path / "eval").mkdir()
    pl.DataFrame({"text": [QUESTION, "Is this one asked nowhere else?"]}).write_parquet(
        tmp_path / "eval" / "own.parquet"
    )
    raw["corpus"] = {
        "sources": [
            {"name": name, "kind": "text", "unit": "line", "path": f"./{name}.txt", "licence": "CC0-1.0"}
            for name in ("first", "second")
        ],
        "decontaminate": {"sets": [{"name": "own", "path": "./eval"}]},
        "semantic": {"teacher": "minilm", "duplicates": 0.85, "suspects": 0.8},
        "dev": 0.1,
        "test": 0.1,
    }
    raw["stages"] = [{"method": "closed_form", "train_layers": 0, "full_head": {"cosine": 1}}]
    raw["release"]["dimension"] = 416
    return read_recipe(write_recipe(tmp_path, raw))


def made_of(recipe: Recipe, workspace: Workspace) -> dict[str, Artefact]:
    graph, runner = Graph(recipe), Runner(workspace, logging.getLogger("test"))
    assert graph.suspects
    return {step.name: runner.make(step) for step in upstream(graph.stages[0], graph.suspects)}


@pytest.mark.slow
def test_no_stage_trains_on_the_later_of_two_texts_that_mean_the_same(recipe: Recipe, workspace: Workspace):
    made = made_of(recipe, workspace)
    texts = pl.read_parquet(made["corpus"].folder / "corpus.parquet")
    dropped = pl.read_parquet(made["semantic_duplicates"].folder / "dropped.parquet")
    split, id_of = (
        dict(zip(texts["text"], texts["split"], strict=True)),
        dict(zip(texts["text"], texts["id"], strict=True)),
    )
    ranked = [sorted(pair, key=lambda text: split[text] == "train") for pair in PARAPHRASES]  # held-out texts stay
    expected = {(later, f"like {id_of[first][:16]}") for first, later in ranked if split[later] == "train"}
    mine = dropped.filter(pl.col("excerpt").is_in([text for pair in PARAPHRASES for text in pair]))
    assert set(mine.select("excerpt", "detail").iter_rows()) == expected
    assert len(expected) >= 3
    assert set(dropped["rule"]) == {"semantic duplicate"}
    assert dropped["value"].min() >= 0.85
    assert not set(dropped["id"]) & set(texts.filter(pl.col("split") != "train")["id"])
    trained_on = texts.filter(split="train").height - len(dropped)
    assert made["stage_1"].manifest.metrics["texts_train"] == trained_on


@pytest.mark.slow
def test_texts_like_an_evaluation_text_are_listed_and_stay(recipe: Recipe, workspace: Workspace):
    made = made_of(recipe, workspace)
    suspects = pl.read_parquet(made["contamination_suspects"].folder / "suspects.parquet").to_dicts()
    assert [(row["excerpt"], row["evaluation_excerpt"], row["task"]) for row in suspects] == [
        (ASKED_OTHERWISE, QUESTION, "own")
    ]
    assert ASKED_OTHERWISE in set(pl.read_parquet(made["corpus"].folder / "corpus.parquet")["text"])


def test_impossible_settings_are_refused(tmp_path: Path, raw: dict[str, Any]):
    for semantic, message in (
        ({"teacher": "minilm"}, "set `duplicates`, e.g. to 0.95, or `suspects`"),
        (
            {"teacher": "nobody", "duplicates": 0.9},
            "corpus.semantic.teacher names 'nobody'; the recipe has minilm, lsa",
        ),
        ({"teacher": "minilm", "suspects": 0.9}, "semantic.suspects needs evaluation texts"),
        ({"teacher": "minilm", "duplicates": 1.5}, "less than or equal to 1"),
    ):
        raw["corpus"]["semantic"] = semantic
        with pytest.raises(RecipeError, match=message):
            read_recipe(write_recipe(tmp_path, raw))
