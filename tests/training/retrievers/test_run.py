"""A recipe with retrievers, made by the runner: models that sentence-transformers loads, and steps that are reused."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from stella_assets.core.devices import Compute
from stella_assets.core.models import model_digest
from stella_assets.core.runner import Runner
from stella_assets.core.step import upstream
from stella_assets.recipe import Graph, parse_recipe
from stella_assets.recipe.read import RecipeError
from stella_assets.storage.workspace import Workspace

WORDS = "array graph node sort search path network file open close read write matrix vector sum tree".split()
LATE: dict[str, Any] = {
    "name": "late",
    "kind": "multi_vector",
    "token_dim": 16,
    "query_length": 16,
    "document_length": 24,
    "scores": "store",
    "losses": {"kl": 1, "margin_mse": 0.1, "contrastive": 0.2},
    "candidates": 4,
    "batch_size": 4,
    "steps": 6,
    "learning_rate": 1e-4,
    "checkpoint_every": 3,
}


def with_retrievers(raw: dict[str, Any], folder: Path, *retrievers: dict[str, Any]) -> dict[str, Any]:
    """The tiny recipe with questions and answers of few words, and one teacher that is quick."""
    random = np.random.default_rng(0)
    rows = [[f"{' '.join(random.choice(WORDS, 6))} number {n}" for _ in range(2)] for n in range(160)]
    pl.DataFrame(
        {"q": [f"what is {first}" for first, _ in rows], "a": [f"{first}: {second}." for first, second in rows]}
    ).write_csv(folder / "faq.csv")
    source = {"name": "faq", "kind": "csv", "path": "./faq.csv", "licence": "MIT"}
    raw["corpus"] = {
        "sources": [{**source, "columns": {"query": "q", "positive": "a"}}],
        "clean": {"document": {"min_chars": 4}, "query": {"min_chars": 4}},
        "deduplicate": None,
        "dev": 0.2,
        "test": 0.1,
    }
    raw["teachers"] = [{"name": "lsa", "kind": "lsa", "dim": 16, "licence": "MIT"}]
    raw["mined_negatives"] = {"teacher": "lsa", "per_query": 5}
    raw["pair_scores"] = [{"name": "store", "kind": "stored"}]
    raw["stages"] = [{**raw["stages"][0], "steps": 2, "checkpoint_every": 2}]
    raw["student"] |= {"matryoshka_heads": "prefix", "matryoshka_dims": [8]}
    raw["release"]["dimension"] = 16
    raw["retrievers"] = list(retrievers)
    return raw


def test_a_late_interaction_model_learns_from_pairs_and_loads_in_sentence_transformers(
    raw: dict[str, Any], tmp_path: Path, workspace: Workspace
):
    from sentence_transformers import MultiVectorEncoder

    graph = Graph(parse_recipe(with_retrievers(raw, tmp_path, LATE), tmp_path / "tiny.yaml"))
    step = graph.retrievers["late"]
    assert graph.pair_scores["store"] in step.dependencies
    assert graph.stages[-1] in step.dependencies
    runner = Runner(workspace, logging.getLogger("test"))
    for each in upstream(step, order=False):  # without the rehearsal
        artefact = runner.make(each)
    assert artefact.name == "retriever/late"
    metrics = artefact.manifest.metrics
    assert metrics["lists_train"] > 50
    assert metrics["dev_loss_after"] < metrics["dev_loss_before"]
    log = pl.read_parquet(artefact.folder / "training_log.parquet")
    assert set(log["term"]) == {"kl", "margin_mse", "contrastive", "total", "answer_first"}
    saved = step.read(artefact, workspace)
    loaded = saved.load(Compute())
    other = MultiVectorEncoder(str(saved.folder))
    queries, documents = ["Return a graph.", "What is a node?"], ["A graph, of nodes.", "Nothing!"]
    expected = other.similarity_pairwise(other.encode_query(queries), other.encode_document(documents))
    assert np.array_equal(loaded.score_pairs(queries, documents), expected.numpy())
    assert other.encode_document(["Nodes."])[0].shape[1] == 16
    assert step.presentation is not None
    assert step.presentation.show(artefact)["loss"]
    assert runner.make(step).reused
    assert step.estimated(runner, artefact.manifest, None).steps == 6
    assert torch.isfinite(expected).all()
    # A second training of other bits is measured, not compared byte by byte.
    assert step.compare is not None
    assert step.compare(artefact, workspace, artefact, workspace).tolerated


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"scores": "other"}, "retriever 'late': scores names 'other'; the recipe has pair_scores store"),
        ({"scores": None}, "kl learns from scores; set `scores` to the name of some `pair_scores`"),
        ({"losses": {"contrastive": 1}}, "scores has no effect: none of `losses` learns from scores"),
        ({"losses": {"kl": 0}}, "every weight is 0"),
        ({"epochs": 1}, "give one of `steps` and `epochs`"),
        ({"candidates": 1}, "kl needs lists of 2; `candidates` is 1"),
        ({"name": "Late"}, "retrievers"),
        ({"kind": "other"}, "retrievers"),
    ],
)
def test_a_retriever_that_cannot_be_is_refused_when_the_recipe_is_read(raw, tmp_path, change, why):
    with pytest.raises(RecipeError, match=why):
        parse_recipe(with_retrievers(raw, tmp_path, {**LATE, **change}), tmp_path / "tiny.yaml")


def test_a_retriever_with_a_model_of_its_own_waits_for_no_stage(raw, tmp_path, workspace, published):
    model = published("bert")
    raw = with_retrievers(raw, tmp_path, LATE, {**LATE, "name": "other", "start": {"model": str(model)}})
    recipe = parse_recipe(raw, tmp_path / "tiny.yaml")
    graph = Graph(recipe)
    step = graph.retrievers["other"]
    assert graph.stages[-1] not in upstream(step)
    assert step.external_versions is not None
    assert step.external_versions(workspace) == {"own_model": model_digest(recipe.retrievers[1].start)}
    # Where the model lies is not part of what is made, nor is what the retriever and its scores are called.
    assert str(model) not in str(step.settings)
    assert "late" not in str(graph.retrievers["late"].settings)
    assert graph.retrievers["late"].external_versions is None
    assert recipe.published_models()["retriever 'other'"] == recipe.retrievers[1].start


def test_retrievers_need_pairs_and_names_of_their_own(raw, tmp_path):
    with pytest.raises(RecipeError, match="two retrievers are named 'late'"):
        parse_recipe(with_retrievers(raw, tmp_path, LATE, LATE), tmp_path / "tiny.yaml")
    raw["corpus"]["sources"][0]["columns"] = {"text": "q"}
    del raw["mined_negatives"], raw["pair_scores"]
    raw["retrievers"] = [{**LATE, "scores": None, "losses": {"contrastive": 1}}]
    with pytest.raises(RecipeError, match="retrievers learn from pairs of texts, and no source gives any"):
        parse_recipe(raw, tmp_path / "tiny.yaml")


def test_a_recipe_without_retrievers_has_the_digest_that_it_had_before(raw, tmp_path):
    without = parse_recipe(raw, tmp_path / "tiny.yaml")
    assert "retrievers" not in without.model_dump(mode="json")


def test_how_many_documents_a_reranker_orders_decides_its_scores_and_not_its_weights(raw, tmp_path):
    def graph(**changes: Any) -> Graph:
        skipped = ("token_dim", "query_length", "document_length")
        ranker = {key: value for key, value in LATE.items() if key not in skipped} | {"kind": "reranker"} | changes
        ranker["losses"] = {"kl": 1}
        raw["evaluation"] = {"held_out": {"kinds": ["retrieval"]}}
        return Graph(parse_recipe(with_retrievers(raw, tmp_path, ranker), tmp_path / "tiny.yaml"))

    plain, same, few = graph(), graph(rerank_k=100), graph(rerank_k=20)
    assert plain.rankings[-1].version == same.rankings[-1].version != few.rankings[-1].version
    assert plain.retrievers["late"].version == few.retrievers["late"].version
    with pytest.raises(RecipeError, match=r"rerank_k: .* less than or equal to 100 \(value: 101\)"):
        graph(rerank_k=101)
