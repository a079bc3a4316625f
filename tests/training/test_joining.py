"""A teacher that joins later: its rows of the full head start in closed form, and what was learnt is kept."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn.functional import normalize

from stella_assets.core.devices import Compute
from stella_assets.students import FULL, SavedStudent
from stella_assets.students.dense.model import DenseStudent
from stella_assets.training.inputs import StageInputs
from stella_assets.training.stages.base import StageConfig
from stella_assets.training.stages.closed_form import ClosedForm
from stella_assets.training.tables import TRAINING_LOG
from stella_assets.training.targets import new_teachers
from stella_assets.training.train import train_stage
from tests.training.conftest import NARROW, WIDE, Lesson

WEIGHTS = {"wide": 1.0, "narrow": 0.5}
ROWS = {"wide": slice(0, WIDE), "narrow": slice(WIDE, WIDE + NARROW)}
# So small that a stage changes nothing that could be seen: what is compared is the start.
STILL = 1e-12


def run(inputs: StageInputs, stage: StageConfig, folder: Path, log: logging.Logger) -> SavedStudent:
    for name in ("made", "scratch"):
        (folder / name).mkdir(parents=True)
    train_stage(replace(inputs, stage=stage, folder=folder / "made", scratch=folder / "scratch"), log)
    return SavedStudent(folder / "made" / "model", inputs.student)


@pytest.fixture
def first(inputs: StageInputs, tmp_path: Path, log: logging.Logger) -> SavedStudent:
    stage = ClosedForm.model_validate(
        {"method": "closed_form", "train_layers": 0, "full_head": {"cosine": 1}, "teachers": ["wide"]}
    )
    return run(replace(inputs, starts_matryoshka_heads=False), stage, tmp_path / "first", log)


@pytest.fixture
def inputs(inputs: StageInputs, request: pytest.FixtureRequest) -> StageInputs:
    changes = getattr(request, "param", {})
    return replace(inputs, student=inputs.student.model_copy(update=changes), starts_matryoshka_heads=False)


def join(lesson: Lesson, inputs: StageInputs, first: SavedStudent, folder: Path, **changes: object) -> DenseStudent:
    stage = lesson.stage(
        steps=2, checkpoint_every=1, learning_rate=STILL, full_head={"cosine": 1}, matryoshka_heads=None,
        train_layers=0, matryoshka_targets=["teachers"], **changes,
    )  # fmt: skip
    joining = replace(inputs, name="stage_2", previous=first.folder)
    return run(joining, stage, folder, logging.getLogger("joining")).load(Compute())


def dev_loss(folder: Path) -> float:
    """Of the student before the first step."""
    rows = pq.read_table(folder / "made" / TRAINING_LOG.file).to_pylist()
    return next(row["value"] for row in rows if row["split"] == "dev" and (row["step"], row["term"]) == (0, "total"))


@pytest.mark.parametrize("inputs", [{}, pytest.param({"head_hidden": 20}, marks=pytest.mark.slow)], indirect=True)
def test_a_teacher_that_joins_is_better_than_random_from_the_first_step(
    lesson: Lesson, inputs: StageInputs, tmp_path: Path, log: logging.Logger
):
    start = lesson.stage(teachers=["wide"], steps=3, full_head={"cosine": 1}, matryoshka_heads=None)
    before = run(inputs, start, tmp_path / "first", log)
    losses = {}
    for head_start in (None, "random"):
        join(lesson, inputs, before, tmp_path / str(head_start), head_start=head_start)
        losses[head_start] = dev_loss(tmp_path / str(head_start))
    assert losses[None] < losses["random"] - 0.05


def test_rows_that_were_learnt_are_kept_and_the_new_part_has_the_length_of_its_weight(
    lesson: Lesson, inputs: StageInputs, first: SavedStudent, tmp_path: Path
):
    before, after = first.load(Compute()), join(lesson, inputs, first, tmp_path / "second")
    for part in ("weight", "bias"):
        old, new = (getattr(student.head(FULL).linear, part)[ROWS["wide"]] for student in (before, after))
        torch.testing.assert_close(old, new, atol=1e-9, rtol=0)
    states = torch.from_numpy(after.encode_pooled([f"sort array {i} of a graph" for i in range(60)]))
    vectors = after.head(FULL)(states).detach()
    lengths = {name: vectors[:, rows].norm(dim=1).mean().item() for name, rows in ROWS.items()}
    assert lengths["narrow"] / lengths["wide"] == pytest.approx(WEIGHTS["narrow"] / WEIGHTS["wide"], rel=0.25)


def test_the_new_part_is_what_a_closed_form_of_that_teacher_alone_gives(
    lesson: Lesson, inputs: StageInputs, first: SavedStudent, tmp_path: Path, log: logging.Logger
):
    joined = join(lesson, inputs, first, tmp_path / "second")
    raw = {"method": "closed_form", "train_layers": 0, "full_head": {"cosine": 1}, "teachers": ["narrow"]}
    alone = run(inputs, ClosedForm.model_validate(raw), tmp_path / "alone", log).load(Compute())
    states = torch.from_numpy(joined.encode_pooled(["sort array", "open file", "matrix vector sum"]))
    parts = [normalize(each.head(FULL)(states)[:, ROWS["narrow"]], dim=1).detach() for each in (joined, alone)]
    np.testing.assert_allclose(*parts, atol=1e-4)


def test_only_teachers_that_taught_no_stage_are_new(lesson: Lesson):
    layout = lesson.snapshot.layout
    assert new_teachers(layout, torch.empty(0, dtype=torch.int64), None) == ["wide", "narrow"]
    assert new_teachers(layout, torch.arange(WIDE), None) == ["narrow"]
    assert new_teachers(layout, torch.arange(WIDE), ["wide"]) == []
    assert new_teachers(layout, None, ["wide", "narrow"]) == []


def test_a_first_stage_starts_at_random_unless_it_says_otherwise(
    lesson: Lesson, inputs: StageInputs, tmp_path: Path, log: logging.Logger
):
    losses = {}
    for head_start in (None, "closed_form"):
        stage = lesson.stage(
            steps=1, learning_rate=STILL, full_head={"cosine": 1}, matryoshka_heads=None, head_start=head_start
        )
        run(inputs, stage, tmp_path / str(head_start), log)
        losses[head_start] = dev_loss(tmp_path / str(head_start))
    assert losses["closed_form"] < losses[None] - 0.2
    assert "head_start" not in lesson.stage().settings()
