"""Stages that learn from some of the teachers: the full head has rows for those that teach, and only these are used."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stella_assets.core.devices import Compute
from stella_assets.students import FULL, SavedStudent, StudentError
from stella_assets.training.inputs import StageInputs
from stella_assets.training.stages.closed_form import ClosedForm
from stella_assets.training.targets import joined
from stella_assets.training.train import train_stage
from tests.training.conftest import NARROW, WIDE, Lesson

LAYOUT = {"wide": slice(0, WIDE), "narrow": slice(WIDE, WIDE + NARROW)}


@pytest.fixture
def inputs(inputs: StageInputs) -> StageInputs:
    student = inputs.student.model_copy(update={"matryoshka_dims": (16, 8)})
    return replace(inputs, stage=closed_form(), student=student, starts_matryoshka_heads=False)


def closed_form(*teachers: str) -> ClosedForm:
    raw = {"method": "closed_form", "train_layers": 0, "full_head": {"cosine": 1}, "teachers": teachers or None}
    return ClosedForm.model_validate(raw)


def run(inputs: StageInputs, folder: Path, log: logging.Logger) -> SavedStudent:
    for name in ("made", "scratch"):
        (folder / name).mkdir(parents=True)
    train_stage(replace(inputs, folder=folder / "made", scratch=folder / "scratch"), log)
    return SavedStudent(folder / "made" / "model", inputs.student)


def test_a_student_of_one_teacher_has_that_teachers_dimensions_only(
    inputs: StageInputs, tmp_path: Path, log: logging.Logger
):
    saved = run(replace(inputs, stage=closed_form("wide"), teachers=("wide",)), tmp_path / "one", log)
    student = saved.load(Compute())
    assert student.dimensions == student.rows == {FULL: WIDE, "16": 16, "8": 8}
    assert json.loads((saved.folder / "heads.json").read_text()) == {"full": WIDE, "taught": None}


def test_a_teacher_that_joins_later_counts_from_then_on(inputs: StageInputs, tmp_path: Path, log: logging.Logger):
    first = run(replace(inputs, stage=closed_form("narrow")), tmp_path / "first", log)
    student = first.load(Compute())
    assert (student.dimensions[FULL], student.rows[FULL]) == (NARROW, WIDE + NARROW)
    assert json.loads((first.folder / "heads.json").read_text())["taught"] == [[WIDE, WIDE + NARROW]]
    pooled = torch.from_numpy(student.encode_pooled(["sort array"]))
    with torch.no_grad():
        expected = torch.nn.functional.normalize(student.head(FULL)(pooled)[:, LAYOUT["narrow"]], dim=1)
        torch.testing.assert_close(student.project(pooled, FULL), expected, atol=0, rtol=0)
    joining = replace(inputs, name="stage_2", previous=first.folder, stage=closed_form("wide", "narrow"))
    second = run(joining, tmp_path / "second", log).load(Compute())
    assert second.taught is None
    assert second.dimensions[FULL] == WIDE + NARROW
    again = run(replace(joining, stage=closed_form("wide")), tmp_path / "third", log).load(Compute())
    assert again.taught is None  # narrow was taught before, and its rows stay as they were
    np.testing.assert_array_equal(
        again.head(FULL).linear.weight[LAYOUT["narrow"]].detach(),
        student.head(FULL).linear.weight[LAYOUT["narrow"]].detach(),
    )


def test_a_stage_of_one_teacher_can_be_the_first_to_train_matryoshka_heads(
    lesson: Lesson, inputs: StageInputs, tmp_path: Path, log: logging.Logger
):
    """The heads started from the whole full head, whose rows the targets of one teacher do not fit."""
    stage = lesson.stage(teachers=["narrow"], steps=2, checkpoint_every=2)
    saved = run(replace(inputs, stage=stage, starts_matryoshka_heads=True), tmp_path / "one", log)
    assert saved.load(Compute()).dimensions == {FULL: NARROW, "16": 16, "8": 8}


def test_prefix_heads_need_rows_that_the_first_stage_teaches(inputs: StageInputs, tmp_path: Path, log: logging.Logger):
    prefix = inputs.student.model_copy(update={"matryoshka_heads": "prefix"})
    with pytest.raises(StudentError, match=r"matryoshka_dims 16: .* the first stage teaches the first 0 only"):
        run(replace(inputs, student=prefix, stage=closed_form("narrow")), tmp_path / "narrow", log)
    student = run(replace(inputs, student=prefix, stage=closed_form("wide")), tmp_path / "wide", log).load(Compute())
    assert student.dimensions == {FULL: WIDE, "16": 16, "8": 8}


def test_what_two_stages_teach_is_joined_in_order():
    assert joined(torch.tensor([4, 5]), torch.tensor([0, 1, 5]), 8).tolist() == [0, 1, 4, 5]
    assert joined(torch.tensor([2, 3]), torch.tensor([0, 1]), 4) is None
    assert joined(None, torch.tensor([0, 1]), 4) is None
