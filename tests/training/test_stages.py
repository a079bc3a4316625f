"""Settings of stages and losses: what a recipe may contain, and what its identity depends on."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from stella_assets.core.step import Size
from stella_assets.students import DenseConfig
from stella_assets.training.head_losses import HeadLosses, MatryoshkaLosses
from stella_assets.training.losses import LOSSES
from stella_assets.training.stages import STAGES
from stella_assets.training.stages.closed_form import ClosedForm
from stella_assets.training.stages.contrastive import Contrastive
from stella_assets.training.stages.descent import Descent
from tests.conftest import TINY

PUBLISHED = {"cosine": 10, "similarity": 200, "relative_similarity": {"weight": 20, "margin": 0.02}}
DESCENT = {"train_layers": 1, "full_head": {"cosine": 1}, "steps": 3, "learning_rate": 0.1}


def test_a_number_is_short_for_a_weight_and_settings_stay_as_they_were_written():
    losses = HeadLosses.model_validate(PUBLISHED)
    assert {loss.loss: loss.weight for loss in losses.losses} == {
        "cosine": 10.0, "similarity": 200.0, "relative_similarity": 20.0
    }  # fmt: skip
    assert losses == HeadLosses.model_validate({**PUBLISHED, "cosine": {"weight": 10}})
    assert HeadLosses.model_validate(losses.settings()) == losses


def test_a_loss_that_does_not_count_is_not_part_of_the_identity():
    """Otherwise every stage would be trained again when a loss is added to this package."""
    alone = HeadLosses.model_validate({"cosine": 1})
    assert alone.settings() == {"cosine": 1.0, "normalize_by_teacher_std": False}
    assert HeadLosses.model_validate({"cosine": 1, "l2": 0, "similarity": {"weight": 0}}) == alone


def test_losses_are_summed_in_a_fixed_order_whatever_that_of_the_recipe():
    order = "cosine l2 angular similarity relative_similarity info_nce soft_kl cosent angle spread_out mse".split()
    assert [loss.loss for loss in HeadLosses.model_validate(dict.fromkeys(reversed(order), 1)).losses] == order
    assert sorted(order) == sorted(LOSSES.names())


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({"cosine": 0}, "every weight is 0, so nothing would be learnt"),
        ({"cosine": -1}, "greater than or equal to 0"),
        ({"cosine": "much"}, r"a loss takes a weight, or settings such as `\{weight: 10\}`"),
        ({"cosine": {"weight": 1, "margin": 2}}, r"cosine\.margin"),
        ({"cosine": 1, "margin": 0.02}, "margin\n"),
    ],
)
def test_impossible_losses_are_refused(losses: dict, message: str):
    with pytest.raises(ValidationError, match=message):
        HeadLosses.model_validate(losses)


@pytest.mark.parametrize("loss", ["cosine", "l2", "angular", "mse"])
def test_a_matryoshka_head_refuses_losses_that_need_equal_dimensions(loss: str):
    with pytest.raises(ValidationError, match=f"{loss} compares vectors of equal dimensions"):
        MatryoshkaLosses.model_validate({loss: 1, "similarity": 1})
    assert MatryoshkaLosses.model_validate({loss: 0, "similarity": 1}).losses[0].loss == "similarity"


@pytest.mark.parametrize("key", ["steps", "learning_rate", "matryoshka_heads"])
def test_closed_form_says_which_key_it_does_not_take(key: str):
    with pytest.raises(ValidationError, match=f"method closed_form takes no {key}; remove it"):
        ClosedForm.model_validate({"full_head": {"cosine": 1}, key: 1})


def test_closed_form_needs_a_frozen_encoder():
    with pytest.raises(ValidationError, match="needs a frozen encoder: set train_layers to 0, not 1"):
        ClosedForm.model_validate({"full_head": {"cosine": 1}, "train_layers": 1})


def test_a_stage_says_where_it_does_not_fit_the_student():
    student = DenseConfig.model_validate({**TINY["student"], "head_hidden": 48})
    by_dimension = Descent.model_validate({**DESCENT, "matryoshka_heads": {"128": {"similarity": 1}}})
    with pytest.raises(ValueError, match=r"stages\.2\.matryoshka_heads names 128"):
        by_dimension.require_fit("stages.2", student)
    with pytest.raises(ValueError, match=r"stages\.0: .*head of two layers"):
        ClosedForm.model_validate({"full_head": {"cosine": 1}}).require_fit("stages.0", student)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"texts": 500}, "give one of `steps`, `texts` and `epochs`"),
        ({"epochs": 2}, "give one of `steps`, `texts` and `epochs`"),
        ({"steps": None}, "give one of `steps`, `texts` and `epochs`"),
        ({"max_texts": 2000}, "min_texts and max_texts limit `epochs`"),
        ({"steps": None, "epochs": 1, "min_texts": 9, "max_texts": 8}, "min_texts 9 is more than max_texts 8"),
        ({"batch_size": 8, "batch_tokens": 100}, "give either `batch_size` or `batch_tokens`"),
        ({"steps": None, "texts": 100}, "texts 100 is less than one batch of 128"),
        ({"matryoshka_targets": ["full_head"]}, "matryoshka_targets has no effect without"),
        ({"min_steps": 5}, "min_steps needs `texts` or `epochs`, and `batch_size`"),
        ({"teachers": []}, "teachers\n.*at least 1 item"),
        ({"train_layers": 0, "unfreeze_fraction": 0.5}, "unfreeze_fraction has no effect with train_layers 0"),
    ],
)
def test_impossible_stages_are_refused(changes: dict, message: str):
    with pytest.raises(ValidationError, match=message):
        Descent.model_validate({**DESCENT, **changes})


@pytest.mark.parametrize(
    ("length", "words"),
    [
        ({}, "3 steps in batches of 128 texts."),
        ({"batch_tokens": 2048}, "3 steps in batches of 2,048 tokens."),
        ({"steps": None, "texts": 5000, "min_steps": 100}, "5,000 texts in batches of 50 texts."),
        ({"steps": None, "epochs": 1}, "1 pass over the texts, in batches of 128 texts."),
        (
            {"steps": None, "epochs": 2.5, "min_texts": 1000, "max_texts": 9000, "min_steps": 9},
            "2.5 passes over the texts, at least 1,000 texts, at most 9,000 texts, in batches of at most 128 texts.",
        ),
    ],
)
def test_a_stage_says_how_long_it_trains(length: dict, words: str):
    assert f": {words} A stage as in" in Descent.model_validate({**DESCENT, **length}).describe()


def test_settings_come_back_from_json_as_they_were():
    for raw in (TINY["stages"][2], {"method": "closed_form", "full_head": PUBLISHED}):
        stage = STAGES[raw.get("method", "descent")].model_validate(raw)
        assert type(stage).model_validate(stage.settings()) == stage


def test_settings_are_read_without_a_model_library():
    code = "import sys, stella_assets.training.stage; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_a_contrastive_stage_counts_pairs():
    stage = Contrastive(
        train_layers="all", epochs=2, batch_size=50, learning_rate=1e-3, full_head={"cosine": 1, "info_nce": 1}
    )
    assert stage.estimate(None, None).seconds is None
    size = Size(5000, 4000, 0, 1000, pairs=1000)
    assert (stage.estimate(None, size).work, stage.estimate(None, size).steps) == ("40 steps of 50 pairs", 40)
    metrics = {"pairs_train": 500, "scored_train": 0, "texts_train": 1500, "texts_seen": 3000, "steps": 20}
    last = SimpleNamespace(run_info={"seconds": 30.0}, metrics=metrics | {"parameters": 1})
    # Without a corpus it would have the pairs of the last run, and with twice as many takes twice as long.
    assert (stage.estimate(last, None).steps, stage.estimate(last, None).seconds) == (20, 30.0)
    assert (stage.estimate(last, size).texts, stage.estimate(last, size).seconds) == (6000, 60.0)
    few = SimpleNamespace(
        run_info={"seconds": 7.0}, metrics={**last.metrics, "texts_seen": 450, "steps": 3, "texts_per_second": 90}
    )
    assert stage.estimate(few, size).seconds == pytest.approx(2 + 6000 / 90)


def test_a_frozen_encoder_takes_the_time_of_its_one_pass():
    """Of a probe, whose steps on pooled states are quick, whatever the encoder takes."""
    stage = Descent(steps=1000, batch_size=100, train_layers=0, learning_rate=1e-3, full_head={"cosine": 1})
    metrics = {"texts_train": 200, "texts_seen": 300, "steps": 3, "texts_per_second": 10_000, "encoded_per_second": 50}
    probe = SimpleNamespace(run_info={"seconds": 6.03}, metrics=metrics)
    size = Size(5000, 4000, 0, 1000)
    # 2 s of loading, 4,000 texts at 50 a second, 100,000 texts of steps at 10,000 a second.
    assert stage.estimate(probe, size).seconds == pytest.approx(2 + 80 + 10)
    few = stage.model_copy(update={"steps": 10})  # sees 1,000 of the 4,000 texts, so it reads no others
    assert few.estimate(probe, size).seconds == pytest.approx(2 + 20 + 0.1)
