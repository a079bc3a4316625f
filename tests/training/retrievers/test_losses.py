"""Each loss equals its naive form in float64, and that of sentence-transformers where it has one."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from stella_assets.training.retrievers.gradients import ListGradients
from stella_assets.training.retrievers.lists import ListBatch
from stella_assets.training.retrievers.losses import LIST_LOSSES
from tests.training.retrievers.conftest import late, start

LISTS, MOST, DOCUMENTS = 5, 4, 9


def random_batch() -> ListBatch:
    """Lists of 2 to 4 of 9 documents; some documents are in several lists, and answer several queries."""
    random = np.random.default_rng(0)
    there = np.arange(MOST)[None, :] < np.array([4, 2, 3, 4, 2])[:, None]
    place = np.stack([random.permutation(DOCUMENTS)[:MOST] for _ in range(LISTS)]) * there
    answers = random.random((LISTS, DOCUMENTS)) < 0.2
    answers[np.arange(LISTS), place[:, 0]] = True
    score = torch.from_numpy(random.standard_normal((LISTS, MOST))) * torch.from_numpy(there)
    tensors = [torch.from_numpy(array) for array in (place, there, there & np.take_along_axis(answers, place, 1))]
    names = [str(number) for number in range(LISTS)]
    return ListBatch(names, names, names, *tensors, score, torch.from_numpy(answers), 0.5)


def softmax(scores: list[float]) -> list[float]:
    powers = [math.exp(score) for score in scores]
    return [power / sum(powers) for power in powers]


def naive_kl(student: Tensor, _every: Tensor, batch: ListBatch) -> list[float]:
    values = []
    for row in range(LISTS):
        there = batch.there_BC[row].nonzero()[:, 0].tolist()
        q = softmax([student[row, c].item() / 2 for c in there])
        p = softmax([batch.score_BC[row, c].item() / 0.5 / 3 for c in there])
        values.append(sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True)))
    return values


def naive_margin_mse(student: Tensor, _every: Tensor, batch: ListBatch) -> list[float]:
    values = []
    for row in range(LISTS):
        negatives = batch.there_BC[row].nonzero()[1:, 0].tolist()
        margins = [
            (student[row, 0] - student[row, c]) - 1.5 * (batch.score_BC[row, 0] - batch.score_BC[row, c]) / 0.5
            for c in negatives
        ]
        values.append(sum(margin.item() ** 2 for margin in margins) / len(margins))
    return values


def naive_contrastive(_own: Tensor, every: Tensor, batch: ListBatch) -> list[float]:
    values = []
    for row in range(LISTS):
        own = batch.place_BC[row, 0].item()
        others = [d for d in range(DOCUMENTS) if d != own and not batch.answers_BM[row, d]]
        total = sum(math.exp(every[row, d].item() / 0.7) for d in [own, *others])
        values.append(-math.log(math.exp(every[row, own].item() / 0.7) / total))
    return values


@pytest.mark.parametrize(
    ("name", "settings", "naive"),
    [
        ("kl", {"student_temperature": 2, "teacher_temperature": 3}, naive_kl),
        ("margin_mse", {"scale": 1.5}, naive_margin_mse),
        ("contrastive", {"temperature": 0.7}, naive_contrastive),
    ],
)
def test_each_loss_equals_its_naive_form(name, settings, naive):
    batch = random_batch()
    loss = LIST_LOSSES[name].model_validate({"weight": 1, **settings})
    every = torch.randn(LISTS, DOCUMENTS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    own = every.gather(1, batch.place_BC).masked_fill(~batch.there_BC, 1e6)  # what stands for no candidate
    score = own if loss.reads == "list" else every
    value = loss.value(score.requires_grad_(), batch)
    np.testing.assert_allclose(value.detach().numpy(), naive(own, every, batch), rtol=1e-12)
    # One list at a time gives the same, so batches can be cut; and there is a gradient, which is finite.
    parts = [loss.value(score[row : row + 1], replace(batch, **rows_of(batch, row))) for row in range(LISTS)]
    torch.testing.assert_close(torch.cat(parts), value, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(value.sum(), score)
    assert torch.isfinite(gradient).all()
    assert gradient.any(dim=1).all()


def rows_of(batch: ListBatch, row: int) -> dict[str, Tensor]:
    names = ("place_BC", "there_BC", "positive_BC", "score_BC", "answers_BM")
    return {name: getattr(batch, name)[row : row + 1] for name in names}


def test_the_losses_are_those_of_sentence_transformers_on_the_same_texts(lists, model):
    from sentence_transformers.multi_vector_encoder.losses import (
        MultiVectorDistillKLDivLoss,
        MultiVectorMarginMSELoss,
        MultiVectorMultipleNegativesRankingLoss,
    )

    settings = late(losses={"kl": 1, "margin_mse": {"weight": 1, "scale": None}, "contrastive": 1})
    retriever = start(settings, model)
    data = lists.data()["train"]
    data._deviation = 1.0
    # Lists whose documents are all different: theirs would count a document twice.
    rows = np.array([0, 1, 2])
    batch = data.batch(rows)
    assert len(batch.documents) == 12
    found = ListGradients(retriever, settings.losses.weighted()).backward(batch)
    encoder = retriever.model
    columns = [batch.queries, *([batch.documents[p] for p in column] for column in batch.place_BC.T.tolist())]
    features = [
        {**encoder.preprocess(texts, prompt=encoder.prompts[task], task=task), "task": task}
        for texts, task in zip(columns, ["query", *["document"] * 4], strict=True)
    ]
    for name, loss in (
        ("kl", MultiVectorDistillKLDivLoss(encoder)),
        ("margin_mse", MultiVectorMarginMSELoss(encoder)),
        ("contrastive", MultiVectorMultipleNegativesRankingLoss(encoder)),
    ):
        with torch.no_grad():
            assert found[name] == pytest.approx(loss(features, batch.score_BC).item(), rel=1e-4), name
