"""A stage learns, reports when it cannot, and ends in the same bits when it was stopped and resumed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from stella_assets.core import progress
from stella_assets.students import FULL
from stella_assets.students.dense.model import DenseStudent
from stella_assets.training import checkpoint, loop
from stella_assets.training.divergence import DivergedError, require_sound
from stella_assets.training.loop import Trained
from stella_assets.training.plots import loss_curves
from stella_assets.training.stages.descent import Descent
from stella_assets.training.train import STATES
from tests.training.conftest import NARROW, WIDE, Lesson

DIM = WIDE + NARROW


def train(lesson: Lesson, student: DenseStudent, stage: Descent, folder: Path) -> Trained:
    return loop.train(stage, lesson.context(student, folder, *(stage.teachers or ())))


def dev(trained: Trained, step: int) -> dict[str, float]:
    return {row["term"]: row["value"] for row in trained.log if row["split"] == "dev" and row["step"] == step}


class StoppedError(Exception):
    pass


VARIANTS: dict[str, dict[str, Any]] = {
    "heads alone": {"train_layers": 0, "steps": 30, "matryoshka_heads": None},
    "one layer": {"train_layers": 1},
    "everything": {"train_layers": "all"},
    "averaged": {"ema_decay": 0.9},
    "in batches of tokens": {"batch_size": None, "batch_tokens": 200},
    "layers that join": {"unfreeze_fraction": 0.9},
    "in parts": {"micro_batch_size": 5},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_stage_that_was_stopped_and_resumed_ends_in_the_same_bits(lesson, tmp_path, monkeypatch, variant):
    stage = lesson.stage(**VARIANTS[variant])
    undisturbed = lesson.student()
    expected = train(lesson, undisturbed, stage, tmp_path / "a")

    class StopsAtTheSecond(checkpoint.Checkpoints):
        saved = 0

        def save(self, *args, **kwargs):
            super().save(*args, **kwargs)
            type(self).saved += 1
            if self.saved == 2:
                raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(loop, "Checkpoints", StopsAtTheSecond)
        with pytest.raises(StoppedError):
            train(lesson, lesson.student(), stage, tmp_path / "b")
    resumed = lesson.student()
    result = train(lesson, resumed, stage, tmp_path / "b")
    assert result.resumed_at == 6
    for (name, a), (_, b) in zip(undisturbed.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert result.log == expected.log
    assert result.optimizer.keys() == expected.optimizer.keys()
    assert all(torch.equal(result.optimizer[key], expected.optimizer[key]) for key in expected.optimizer)


def test_training_lowers_the_dev_loss_of_every_term(lesson, tmp_path):
    trained = train(lesson, lesson.student(), lesson.stage(steps=40, learning_rate=1e-3), tmp_path / "a")
    first, last = dev(trained, 0), dev(trained, 40)
    assert set(first) == {
        "full/cosine", "full/similarity", "full/relative_similarity", "8/similarity", "8/relative_similarity",
        "neighbours", "total",
    }  # fmt: skip
    assert last["neighbours"] > first["neighbours"]
    assert all(last[term] < first[term] for term in first if term != "neighbours")


def test_a_stage_in_passes_is_the_stage_of_as_many_texts(lesson, tmp_path):
    """200 training texts, so a fifth of a pass is 40; the floor of 48 is 3 batches of 16."""
    in_passes, in_texts, alike = lesson.student(), lesson.student(), {"steps": None, "checkpoint_every": 100}
    stage = lesson.stage(epochs=0.2, min_texts=48, min_steps=3, batch_size=32, **alike)
    assert train(lesson, in_passes, stage, tmp_path / "a").steps == 3
    train(lesson, in_texts, lesson.stage(texts=48, batch_size=16, **alike), tmp_path / "b")
    assert all(torch.equal(a, b) for a, b in zip(in_passes.parameters(), in_texts.parameters(), strict=True))


def test_the_best_step_is_kept_or_the_last(lesson, tmp_path, monkeypatch):
    """The loss is made to look best after step 3."""
    wanted = iter([90.0, 10.0, 50.0, 70.0] * 2)
    measure = loop.Measurement.__call__
    monkeypatch.setattr(loop.Measurement, "__call__", lambda *args: {**measure(*args), "total": next(wanted)})
    best, last = lesson.student(), lesson.student()
    kept = train(lesson, best, lesson.stage(), tmp_path / "a")
    assert (kept.kept_step, kept.steps) == (3, 9)
    assert train(lesson, last, lesson.stage(checkpoint_selection="last"), tmp_path / "b").kept_step == 9
    monkeypatch.undo()
    three = lesson.student()
    train(lesson, three, lesson.stage(checkpoint_selection="last"), tmp_path / "c")
    assert all(torch.equal(a, b) for a, b in zip(last.parameters(), three.parameters(), strict=True))
    assert not torch.equal(best.head(FULL).linear.weight, last.head(FULL).linear.weight)


def test_parts_of_a_batch_give_the_gradient_of_the_whole(lesson, tmp_path):
    whole, parts = lesson.student(), lesson.student()
    whole.dtype = parts.dtype = "float32"
    train(lesson, whole, lesson.stage(steps=3), tmp_path / "a")
    train(lesson, parts, lesson.stage(steps=3, micro_batch_size=5), tmp_path / "b")
    for (name, a), (_, b) in zip(whole.named_parameters(), parts.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=0, msg=name)


def test_checkpointed_activations_change_nothing(lesson, tmp_path):
    plain, frugal = lesson.student(), lesson.student()
    train(lesson, plain, lesson.stage(steps=3), tmp_path / "a")
    train(lesson, frugal, lesson.stage(steps=3, gradient_checkpointing=True), tmp_path / "b")
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), frugal.parameters(), strict=True))


def test_layers_join_one_by_one_the_last_first(lesson, tmp_path, monkeypatch):
    student, seen = lesson.student(), []
    step = torch.optim.AdamW.step

    def watch(optimizer, *args, **kwargs):
        moving = [name for name, p in student.named_parameters() if p.grad is not None and "backbone" in name]
        seen.append({name.split("layer.")[1][0] if "layer." in name else "embeddings" for name in moving})
        return step(optimizer, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", watch)
    train(lesson, student, lesson.stage(steps=8, unfreeze_fraction=0.5), tmp_path / "a")
    assert seen[0] == {"1"}
    assert seen[2] == {"0", "1"}
    assert seen[-1] == {"0", "1", "embeddings"}


def test_token_embeddings_can_stay_as_they_are(lesson, tmp_path):
    student = lesson.student()
    before = student.transformer.get_input_embeddings().weight.clone()
    train(lesson, student, lesson.stage(train_embeddings=False), tmp_path / "a")
    assert torch.equal(student.transformer.get_input_embeddings().weight, before)


def test_a_stage_can_learn_from_some_of_the_teachers(lesson, tmp_path):
    student = lesson.student()
    rows = student.heads[FULL].linear.weight.detach().clone()
    trained = train(lesson, student, lesson.stage(teachers=["narrow"], steps=30), tmp_path / "a")
    moved = (student.heads[FULL].linear.weight != rows).any(dim=1)
    # Weight decay reaches every row; the gradient only those of the teacher.
    change = (student.heads[FULL].linear.weight - rows).abs().amax(dim=1)
    assert moved.all()
    assert change[WIDE:].min() > 20 * change[:WIDE].max()
    assert dev(trained, 30)["full/cosine"] < dev(trained, 0)["full/cosine"]


def test_matryoshka_heads_can_learn_from_the_full_head_too(lesson, tmp_path):
    stage = lesson.stage(matryoshka_targets=["teachers", "full_head"])
    terms = set(dev(train(lesson, lesson.student(), stage, tmp_path / "a"), 0))
    assert {"8/similarity", "8/self/similarity"} <= terms


def test_prefix_heads_are_parts_of_the_full_head(lesson, tmp_path):
    student = lesson.student(matryoshka_heads="prefix", matryoshka_dims=(16, 8))
    train(lesson, student, lesson.stage(), tmp_path / "a")
    assert list(student.heads) == [FULL]
    assert student.dimensions == {FULL: 32, "16": 16, "8": 8}
    pooled = torch.randn(3, student.hidden)
    whole = student.heads[FULL](pooled)
    torch.testing.assert_close(student.project(pooled, "8"), torch.nn.functional.normalize(whole[:, :8], dim=1))


def test_a_loss_that_is_not_a_number_stops_the_stage_with_step_texts_and_checkpoint(lesson, tmp_path, monkeypatch):
    factor = loop.learning_rate_factor
    monkeypatch.setattr(loop, "learning_rate_factor", lambda s, n, m: float("nan") if n == 3 else factor(s, n, m))
    with pytest.raises(DivergedError, match=r"the loss is nan .* at step 5; .*and 13 more.*checkpoint-00000003"):
        train(lesson, lesson.student(), lesson.stage(), tmp_path / "a")
    report = json.loads((tmp_path / "a" / "diverged.json").read_text())
    assert report["step"] == 5
    assert len(report["ids"]) == 16


def test_a_loss_that_explodes_stops_the_stage(lesson, tmp_path):
    student, only = lesson.student(), {"full_head": {"similarity": 1}, "matryoshka_heads": None}
    train(lesson, student, lesson.stage(**only, steps=60, learning_rate=1e-3), tmp_path / "a")
    with pytest.raises(DivergedError, match=r"it began with .*Lower `learning_rate`"):
        train(lesson, student, lesson.stage(**only, steps=60, learning_rate=1.0, warmup=0), tmp_path / "b")


def test_a_stage_that_begins_near_zero_may_rise_up_to_the_loss_of_a_constant(tmp_path):
    def check(loss: float) -> None:
        require_sound("s", 7, loss, 1.0, 0.0008, 0.32, lambda: ["a", "b", "c"], tmp_path)

    check(0.085)  # a hundred times its start, and a quarter of what one vector for all texts gives
    with pytest.raises(DivergedError, match=r"the loss is 0\.33 .* it began with 0\.0008"):
        check(0.33)


def test_progress_shows_terms_speed_and_time_left(lesson, tmp_path, caplog, monkeypatch):
    """A short stage says one line, after its last step, however many checkpoints it has."""
    caplog.set_level("INFO")
    monkeypatch.setattr(progress, "EVERY", 1000.0)
    train(lesson, lesson.student(), lesson.stage(), tmp_path / "a")
    (line,) = [record.message for record in caplog.records if record.name == "training"]
    for part in ("s: step 9 of 9, loss ", "full/cosine ", "8/similarity ", "dev ", "texts/s", "tokens/s", "0 s left"):
        assert part in line


@pytest.mark.parametrize("ids", [["a"], ["a", "b", "c"], ["a", "b", "c", "d"]])
def test_a_diverged_step_counts_its_further_texts(ids: list[str], tmp_path: Path):
    more = {1: "Texts: a, all in", 3: "Texts: a, b, c, all in", 4: "Texts: a, b, c and 1 more, all in"}
    with pytest.raises(DivergedError, match=more[len(ids)]):
        require_sound("s", 3, float("nan"), 1.0, 1.0, 0.32, lambda: ids, tmp_path)


def test_the_space_that_is_asked_for_holds_the_checkpoints_at_their_most(tmp_path: Path, monkeypatch):
    weights = {"w": torch.nn.Parameter(torch.zeros(200_000))}
    optimizer = torch.optim.AdamW(weights.values(), lr=0.1)
    weights["w"].grad = torch.ones_like(weights["w"])
    optimizer.step()
    sizes: list[int] = []
    remove = shutil.rmtree

    def measured(path: Path, **options: Any) -> None:
        sizes.append(sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors")))
        remove(path, **options)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", measured)
    kept = checkpoint.Checkpoints(tmp_path, weights, optimizer, {"w": torch.zeros(200_000)})
    for step in range(1, 6):
        kept.save_best(step)
        kept.save(checkpoint.Progress(step=step))
    states = max(sizes) / (200_000 * 4)
    assert STATES - 0.1 < states <= STATES + 0.01  # the headers of the files


def test_stages_are_drawn_in_their_order_also_more_than_there_are_colours():
    log = [
        {"stage": f"stage_{number}", "step": step, "split": split, "term": "total", "value": 1.0 + step}
        for number in range(1, 12)
        for step in (0, 1)
        for split in ("train", "dev")
    ]
    assert loss_curves(log).startswith(b"\x89PNG")
