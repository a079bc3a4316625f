"""The kind `reranker`: a cross-encoder that begins with an encoder or a reranker, trains, resumes, and is saved."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from stella_assets.core.config import ModelSource
from stella_assets.core.devices import Compute
from stella_assets.core.errors import UserError
from stella_assets.core.runner import Runner
from stella_assets.core.step import upstream
from stella_assets.recipe import Graph, parse_recipe
from stella_assets.storage.workspace import Workspace
from stella_assets.training.retrievers.base import Row
from stella_assets.training.retrievers.gradients import ListGradients
from tests.training.retrievers.conftest import ranker, start, train
from tests.training.retrievers.test_run import with_retrievers

QUERIES, DOCUMENTS = ["Return a graph.", "What is a node?"], ["A graph, of nodes.", "Nothing!"]


@pytest.mark.parametrize("micro", [5, 12])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(lists, model, micro):
    whole, parts = start(ranker(), model), start(ranker(), model)
    batch = lists.data()["train"].batch(np.arange(7))
    losses = ranker(losses={"bce": 1, "margin_mse": 1, "lambda": 1, "listmle": 1}).losses.weighted()
    expected = ListGradients(whole, losses).backward(batch)
    assert ListGradients(parts, losses, micro).backward(batch) == pytest.approx(expected, rel=1e-4)
    for (name, a), (_, b) in zip(whole.model.named_parameters(), parts.model.named_parameters(), strict=True):
        if a.grad is not None:
            torch.testing.assert_close(b.grad, a.grad, atol=2e-5, rtol=1e-3, msg=name)


def test_scores_of_a_batch_are_those_that_sentence_transformers_predicts(lists, model):
    retriever = start(ranker(), model)
    batch = lists.data()["train"].batch(np.arange(5))
    own, every = ListGradients(retriever, ranker().losses.weighted()).scores(batch)
    assert every is None
    rows = [row.text for row in retriever.rows(batch)]
    assert len(rows) == int(batch.there_BC.sum())
    expected = retriever.model.predict(rows, activation_fn=torch.nn.Identity())
    assert own[batch.there_BC].numpy() == pytest.approx(expected, abs=1e-5)
    assert not own[~batch.there_BC].any()


def test_the_head_is_random_by_the_seed_alone_and_has_its_own_rate(model, caplog):
    settings, source = ranker(), ModelSource(model=str(model))
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, two, other = (settings.initialise(source, None, seed, Compute()) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    names = [name for name, _ in one.model.named_parameters()]
    (old, is_old), (new, is_new) = one.groups()
    assert (is_old, is_new) == (False, True)
    assert len(old) + len(new) == len(names)
    head = {id(weight) for name, weight in one.model.named_parameters() if "classifier" in name}
    assert head <= {id(weight) for weight in new}
    heads = [each.model.model.classifier.weight for each in (one, two, other)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert not caplog.records  # a head that is new on purpose is not warned of


def test_a_saved_reranker_loads_in_sentence_transformers_and_can_be_trained_on(lists, model, tmp_path):
    from sentence_transformers import CrossEncoder

    retriever = start(ranker(), model)
    train(ranker(steps=2), retriever, lists.data(), tmp_path / "scratch")
    retriever.save(tmp_path / "saved")
    scores = retriever.score_pairs(QUERIES, DOCUMENTS)
    other = CrossEncoder(str(tmp_path / "saved"))
    pairs = list(zip(QUERIES, DOCUMENTS, strict=True))
    assert other.predict(pairs, activation_fn=torch.nn.Identity()) == pytest.approx(scores, abs=1e-6)
    assert other.predict(pairs) == pytest.approx(1 / (1 + np.exp(-scores)), rel=1e-5)
    assert other.max_seq_length == 48
    loaded = ranker().load(tmp_path / "saved", Compute())
    assert loaded.score_pairs(QUERIES, DOCUMENTS) == pytest.approx(scores, abs=1e-6)
    # Its head is not new: it goes on where that one ended.
    again = start(ranker(start={"model": str(tmp_path / "saved")}), tmp_path / "saved")
    assert again.score_pairs(QUERIES, DOCUMENTS) == pytest.approx(scores, abs=1e-6)
    assert not again.groups()[1][0]


def test_a_reranker_learns_from_labels_alone(lists, model, tmp_path):
    settings = ranker(
        batch_size=4, scores=None, losses={"listnet": {"weight": 1, "target": "labels"}}, steps=8, checkpoint_every=8
    )
    # Texts of random words hold nothing that could be told of other lists.
    data = lists.data(scored=False)["train"]
    trained = train(settings, start(settings, model), {"train": data, "dev": data}, tmp_path / "a")
    dev = {(row["step"], row["term"]): row["value"] for row in trained.log if row["split"] == "dev"}
    assert dev[8, "total"] < dev[0, "total"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"losses": {"contrastive": 1}, "scores": None}, "which kind reranker cannot afford"),
        ({"losses": {"listmle": 1}, "scores": None}, "listmle learns from scores"),
        ({"losses": {"ranknet": {"weight": 1, "target": "labels"}}}, "none of `losses` learns from scores"),
        ({"max_length": 4}, "max_length"),
    ],
)
def test_a_reranker_that_cannot_be_is_refused(change, why):
    with pytest.raises(ValidationError, match=why):
        ranker(**change)


@pytest.mark.parametrize("architecture", ["roberta", "distilbert", "modernbert", "qwen3", "gpt2", "layout_1"])
def test_encoders_and_decoders_of_many_kinds_become_rerankers(published, tmp_path, architecture):
    settings, folder = ranker(), published(architecture)
    settings.check(ModelSource(model=str(folder)))
    retriever = start(settings, folder)
    assert retriever.groups()[1][0]
    queries, documents = ["what is a node"] * 2, ["a node", "a node of a graph that is much longer than the other"]
    scores = retriever.score_pairs(queries, documents)
    outputs = retriever.outputs([Row("pair", pair) for pair in zip(queries, documents, strict=True)])
    assert torch.stack(outputs).tolist() == pytest.approx(scores.tolist(), abs=1e-4)
    # Padding, which the shorter one has here, counts for nothing.
    assert retriever.score_pairs(queries[:1], documents[:1]) == pytest.approx(scores[:1], abs=1e-4)
    retriever.save(tmp_path / "saved")
    assert settings.load(tmp_path / "saved", Compute()).score_pairs(queries, documents) == pytest.approx(
        scores, abs=1e-5
    )


def test_a_model_that_cannot_score_pairs_is_refused_from_its_files(published):
    with pytest.raises(UserError, match="is of type 'clip', for which transformers has no model"):
        ranker().check(ModelSource(model=str(published("clip"))))


@pytest.mark.slow
def test_a_recipe_trains_and_releases_a_reranker_from_the_last_stage(
    raw: dict[str, Any], tmp_path: Path, workspace: Workspace
):
    from sentence_transformers import CrossEncoder

    losses = {"bce": 1, "mse": 0.5, "ranknet": 1, "margin_mse": 0.1, "listnet": 1, "listmle": 0.1, "lambda": 1}
    settings = {"name": "ranker", "kind": "reranker", "max_length": 32, "scores": "store", "losses": losses}
    sizes = {"candidates": 4, "batch_size": 4, "steps": 4, "learning_rate": 1e-4, "checkpoint_every": 2}
    graph = Graph(parse_recipe(with_retrievers(raw, tmp_path, {**settings, **sizes}), tmp_path / "tiny.yaml"))
    step = graph.retrievers["ranker"]
    runner = Runner(workspace, logging.getLogger("test"))
    release = graph.retriever_releases["ranker"]
    for each in upstream(release, order=False):  # without the rehearsal
        runner.make(each)
    assert (runner.require(release).folder / "lineage.json").is_file()
    artefact = runner.require(step)
    assert artefact.manifest.metrics["kind"] == "reranker"
    saved = step.read(artefact, workspace)
    pairs = list(zip(QUERIES, DOCUMENTS, strict=True))
    expected = CrossEncoder(str(saved.folder)).predict(pairs, activation_fn=torch.nn.Identity())
    assert saved.load(Compute()).score_pairs(QUERIES, DOCUMENTS) == pytest.approx(expected, abs=1e-6)
    # The student has two of the base model's six layers.
    assert CrossEncoder(str(saved.folder)).config.num_hidden_layers == 2
    assert runner.make(step).reused
