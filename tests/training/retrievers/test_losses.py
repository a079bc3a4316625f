"""Each loss equals its naive form in float64, and that of sentence-transformers where it has one."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from stella_assets.training.retriever_losses import LIST_LOSSES
from stella_assets.training.retriever_losses.lambda_loss import lambda_loss
from stella_assets.training.retrievers.gradients import ListGradients
from stella_assets.training.retrievers.lists import ListBatch
from tests.training.retrievers.conftest import late, start

LISTS, MOST, DOCUMENTS = 5, 4, 9
Naive = Callable[[Tensor, Tensor, ListBatch], list[float]]


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
    return ListBatch(names, names, names, *tensors, score, torch.from_numpy(answers), 0.5, 0.25)


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


def candidates(batch: ListBatch, row: int) -> list[int]:
    found: list[int] = batch.there_BC[row].nonzero()[:, 0].tolist()
    return found


def per_list(value: Callable[[list[float], list[float], list[float]], float]) -> Naive:
    """Of scores, teacher's scores and labels of each list's candidates, in Python floats."""

    def naive(student: Tensor, _every: Tensor, batch: ListBatch) -> list[float]:
        tables = (student, batch.score_BC, batch.positive_BC.double())
        return [
            value(*([table[row, c].item() for c in candidates(batch, row)] for table in tables)) for row in range(LISTS)
        ]

    return naive


def naive_bce(f: list[float], _t: list[float], y: list[float]) -> float:
    chances = [1 / (1 + math.exp(-score)) for score in f]
    terms = [-3 * math.log(p) if label else -math.log(1 - p) for p, label in zip(chances, y, strict=True)]
    return sum(terms) / len(terms)


def naive_mse(f: list[float], t: list[float], _y: list[float]) -> float:
    return sum((a - 2 * (b - 0.25) / 0.5) ** 2 for a, b in zip(f, t, strict=True)) / len(f)


def naive_ranknet(f: list[float], y: list[float]) -> float:
    pairs = [(i, j) for i in range(len(f)) for j in range(len(f)) if y[i] > y[j]]
    return sum(math.log(1 + math.exp(f[j] - f[i])) for i, j in pairs) / max(1, len(pairs))


def naive_listnet(f: list[float], p: list[float]) -> float:
    return -sum(a * math.log(b) for a, b in zip(p, softmax(f), strict=True))


def naive_listmle(f: list[float], t: list[float], _y: list[float]) -> float:
    order = sorted(range(len(f)), key=lambda c: -t[c])
    terms = [math.log(sum(math.exp(f[k]) for k in order[i:])) - f[c] for i, c in enumerate(order)]
    return sum(terms) / len(terms)


def naive_lambda(f: list[float], y: list[float]) -> float:
    """Formula 16 of the paper: ranks are those that the student gives."""
    order = sorted(range(len(f)), key=lambda c: -f[c])
    rank = {c: i for i, c in enumerate(order, 1)}
    discount = lambda i: math.log2(1 + i)  # noqa: E731
    best = sum((2**grade - 1) / discount(i) for i, grade in enumerate(sorted(y, reverse=True), 1))
    gain = [(2**grade - 1) / best if best else 0 for grade in y]
    terms = []
    for i in range(len(f)):
        for j in range(len(f)):
            if y[i] > y[j]:
                apart = abs(rank[i] - rank[j])
                bound = abs(1 / discount(apart) - 1 / discount(apart + 1))
                swap = abs(1 / discount(rank[i]) - 1 / discount(rank[j]))
                weight = (5 * bound + swap) * abs(gain[i] - gain[j])
                terms.append(weight * math.log2(1 + math.exp(f[j] - f[i])))
    return sum(terms) / max(1, len(terms))


def graded(t: list[float]) -> list[float]:
    return [2 * (each - min(t)) / (max(t) - min(t)) for each in t]


@pytest.mark.parametrize(
    ("name", "settings", "naive"),
    [
        ("bce", {"positive_weight": 3}, per_list(naive_bce)),
        ("mse", {"scale": 2}, per_list(naive_mse)),
        ("ranknet", {}, per_list(lambda f, t, _y: naive_ranknet(f, t))),
        ("ranknet", {"target": "labels"}, per_list(lambda f, _t, y: naive_ranknet(f, y))),
        ("listnet", {"temperature": 2}, per_list(lambda f, t, _y: naive_listnet(f, softmax([s / 0.5 / 2 for s in t])))),
        ("listnet", {"target": "labels"}, per_list(lambda f, _t, y: naive_listnet(f, [a / sum(y) for a in y]))),
        ("listmle", {}, per_list(naive_listmle)),
        ("lambda", {"mu": 5, "grades": 2}, per_list(lambda f, t, _y: naive_lambda(f, graded(t)))),
        ("lambda", {"mu": 5, "target": "labels"}, per_list(lambda f, _t, y: naive_lambda(f, y))),
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
    some_are_equal = name in ("ranknet", "lambda") and settings.get("target") == "labels"
    assert gradient.any(dim=1).all() or some_are_equal


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


class Table(torch.nn.Module):
    """In place of a cross-encoder: the score of a pair is an entry of a table."""

    device = torch.device("cpu")
    num_labels = 1

    def __init__(self, score_BC: Tensor) -> None:
        super().__init__()
        self._score_BC = score_BC

    def preprocess(self, pairs: list[tuple[str, str]], **_: object) -> dict[str, Tensor]:
        return {"at": torch.tensor([[int(query), int(document)] for query, document in pairs])}

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        row, column = features["at"].T
        return {"scores": self._score_BC[row, column]}


@pytest.mark.parametrize("row", range(LISTS))
def test_losses_of_lists_are_those_of_sentence_transformers_list_by_list(row):
    from sentence_transformers.cross_encoder import losses

    batch = random_batch()
    batch = replace(batch, score_BC=batch.score_BC.abs().float(), deviation=1.0)
    score_BC = torch.randn(LISTS, MOST, generator=torch.Generator().manual_seed(2))
    columns = candidates(batch, row)
    inputs = [[str(row)], [[str(c) for c in columns]]]
    labels = [batch.score_BC[row, columns]]
    # Its RankNet has logarithms of base 2, and its ListMLE is a sum over places and takes the order as it is given.
    order = labels[0].argsort(descending=True).tolist()
    in_order = [inputs[0], [[str(columns[c]) for c in order]]]
    table = Table(score_BC)
    expected = {
        "ranknet": losses.RankNetLoss(table)(inputs, labels) * math.log(2),
        "listnet": losses.ListNetLoss(table)(inputs, labels),
        "listmle": losses.ListMLELoss(table)(in_order, [labels[0][order]]) / len(columns),
    }
    for name, value in expected.items():
        found = LIST_LOSSES[name].model_validate({"weight": 1}).value(score_BC, batch)[row]
        assert found.item() == pytest.approx(value.item(), rel=1e-5), name
    found = lambda_loss(score_BC, batch.score_BC, batch.there_BC)[row]
    assert found.item() == pytest.approx(losses.LambdaLoss(table)(inputs, labels).item(), rel=1e-5)
