"""Batches depend on seed and step alone; groups of similar length are the least work."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stella_assets.training.plan import BatchPlan, BatchSizeError, equal_groups, length_groups

LENGTHS = np.random.default_rng(0).integers(3, 60, size=200)


def test_an_epoch_holds_every_text_at_most_once():
    plan = BatchPlan(LENGTHS, 7, batch_size=16)
    epoch = np.concatenate([plan.positions(step) for step in range(12)])
    assert len(epoch) == len(set(epoch.tolist())) == 192
    assert not np.array_equal(plan.positions(12), plan.positions(0))


@pytest.mark.parametrize("size", [{"batch_size": 16}, {"batch_tokens": 300}])
def test_a_batch_depends_on_seed_and_step_alone(size):
    walked = BatchPlan(LENGTHS, 7, **size)
    steps = [walked.positions(step) for step in range(70)]
    np.testing.assert_array_equal(BatchPlan(LENGTHS, 7, **size).positions(69), steps[69])
    np.testing.assert_array_equal(walked.positions(3), steps[3])
    assert not np.array_equal(BatchPlan(LENGTHS, 8, **size).positions(0), steps[0])


def test_a_batch_of_tokens_is_full_and_not_too_large():
    plan = BatchPlan(LENGTHS, 7, batch_tokens=300)
    sizes = [int(LENGTHS[plan.positions(step)].sum()) for step in range(60)]
    assert max(sizes) <= 300
    assert min(sizes) > 300 - 60


def test_the_steps_of_a_number_of_texts():
    assert BatchPlan(LENGTHS, 7, batch_size=16).steps(1000) == 62
    plan = BatchPlan(LENGTHS, 7, batch_tokens=300)
    steps = plan.steps(500)
    seen = np.cumsum([len(plan.positions(step)) for step in range(steps)])
    assert seen[-1] >= 500 > seen[-2]


def test_too_few_texts_for_a_batch_are_refused():
    with pytest.raises(BatchSizeError, match="batch_size 500 is more than there is to train on: 200 texts"):
        BatchPlan(LENGTHS, 7, batch_size=500)


def work(groups: list[np.ndarray], widths: np.ndarray, cost: int) -> int:
    return sum(int(widths[group].max()) * len(group) + cost for group in groups)


@settings(max_examples=100, deadline=None)
@given(widths=st.lists(st.sampled_from([8, 16, 24, 40, 64, 128]), min_size=1, max_size=12), cost=st.integers(0, 400))
def test_no_other_division_into_groups_is_less_work(widths: list[int], cost: int):
    array = np.array(widths)
    groups = length_groups(array, cost)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(widths)))
    order = np.argsort(-array, kind="stable")
    cuts = [c for n in range(len(widths)) for c in itertools.combinations(range(1, len(widths)), n)]
    assert work(groups, array, cost) == min(work(np.split(order, list(cut)), array, cost) for cut in cuts)


def test_groups_have_a_largest_size():
    assert [len(group) for group in length_groups(np.full(20, 8), 100, max_texts=8)] == [8, 8, 4]


def test_orders_of_known_epochs_are_made_once_per_epoch(monkeypatch: pytest.MonkeyPatch):
    """A step of an early epoch made the order of the last known epoch again, for every step."""
    plan, made = BatchPlan(LENGTHS, 7, batch_tokens=300), []
    steps = plan.steps(2000)  # walks through ten epochs
    rng = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: made.append(seed[1]) or rng(seed))
    for step in range(steps):
        plan.positions(step)
    assert made == sorted(set(made))


@pytest.mark.parametrize("texts", range(5))
def test_every_one_of_several_groups_has_a_text(texts: int):
    widths = np.array([8, 64, 16, 8])[:texts]
    groups = equal_groups(widths, 3)
    assert len(groups) == 3
    assert all(len(group) for group in groups) == (texts > 0)
    assert set(np.concatenate(groups).tolist()) == set(range(texts))
