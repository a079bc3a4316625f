"""Training one stage in this process, which may be one of several that a launcher started for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stella_assets.core.devices import Compute, processes
from stella_assets.core.manifest import Check
from stella_assets.core.step import Log, Result
from stella_assets.students import FULL
from stella_assets.teachers.semantic_duplicates import rows_left_out
from stella_assets.training.inputs import StageInputs
from stella_assets.training.sizes import STATES
from stella_assets.training.stages.base import Outcome, StageContext
from stella_assets.training.tables import TRAINING_LOG
from stella_assets.training.tokens import TokenTable

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.students.dense.model import DenseStudent
    from stella_assets.training.data import TrainingData

MODEL_FOLDER = "model"
# A sample, as the decomposition is dense: `[S, D]` float32 is in memory at once.
PRINCIPAL_SAMPLE = 4096
"""Texts whose targets decide where Matryoshka heads start."""


def train_stage(inputs: StageInputs, log: Log) -> Result:
    """Train a stage, and write the student and the log of its training.

    Args:
        inputs: What the stage needs.
        log: For people.

    Returns:
        Metrics, and the check that the dev loss fell.

    Raises:
        UserError: There are too few texts, the training diverged, or the student cannot be made.
        DiskSpaceError: The disk that checkpoints are written to has too little space.
    """
    select_device(inputs.compute)
    data = _open_data(inputs)
    student, part = _make_student(inputs, data, log)
    # Asked before training, not found out at the first checkpoint. 4 bytes: weights are float32 on every device.
    size = sum(p.numel() for p in student.parameters()) * 4
    inputs.snapshot.workspace.require_space(
        size * STATES,
        f"{inputs.name}, a student of {size / 2**20:,.0f} MiB with its optimiser and its checkpoints,",
        inputs.scratch,
    )
    context = StageContext(
        inputs.name,
        student,
        data,
        inputs.seed_of_order,
        inputs.folder,
        inputs.scratch,
        inputs.compute,
        log,
        part,
        inputs.pairs,
        inputs.mined_negatives,
    )
    outcome = inputs.stage.run(context)
    # Every process has the whole student again; two writers of one folder would damage it.
    if processes(inputs.compute).is_main_process:
        student.save(inputs.folder / MODEL_FOLDER, FULL, inputs.student.prompts)
        TRAINING_LOG.write(inputs.folder, outcome.log)
    return _result(outcome, student, data)


def select_device(compute: Compute) -> None:
    """Make a GPU with a number the current one: accelerate places models there."""
    device = compute.device
    if device.type == "cuda" and device.index is not None:
        import torch

        torch.cuda.set_device(device)


def _open_data(inputs: StageInputs) -> dict[str, TrainingData]:
    from stella_assets.training.data import TrainingData

    snapshot, tokens = inputs.snapshot.open(), TokenTable(inputs.tokens)
    # Only of the training texts: held-out texts stay, so that stages with and without it are measured alike.
    left_out = {"train": rows_left_out(inputs.left_out, snapshot)} if inputs.left_out else {}
    data = {
        split: TrainingData(snapshot, tokens, split, inputs.stage.teachers, left_out.get(split))
        for split in ("train", "dev")
    }
    inputs.stage.require_data(inputs.name, {split: len(texts) for split, texts in data.items()})
    return data


def _make_student(
    inputs: StageInputs, data: Mapping[str, TrainingData], log: Log
) -> tuple[DenseStudent, Tensor | None]:
    """The student of the stage before, or a new one; and which rows of its full head the stage teaches."""
    import torch

    from stella_assets.training.joining import start_rows
    from stella_assets.training.targets import joined, new_teachers, teacher_part

    train = data["train"]
    layout = train.snapshot.layout if inputs.teachers is None else train.snapshot.layout.of(inputs.teachers)
    part = teacher_part(layout, inputs.stage.teachers)
    if inputs.previous is not None:
        student = inputs.student.load(inputs.previous, inputs.compute)
        taught = student.taught
    else:
        weights = inputs.start / MODEL_FOLDER if inputs.start else None
        inputs.student.require_prefixes(layout.leading(inputs.stage.teachers))
        student = inputs.student.initialise(layout.dim, inputs.seed_of_heads, inputs.compute, weights)
        taught = torch.empty(0, dtype=torch.int64)
    names = new_teachers(layout, taught, inputs.stage.teachers)
    if taught is not None and names and inputs.stage.starts_in_closed_form(joining=inputs.previous is not None):
        log.info(start_rows(student, data, layout, names, taught, inputs.name))
    student.taught = joined(taught, part, layout.dim)
    # Once, before the first stage that trains them; later stages continue from what they learnt.
    if inputs.starts_matryoshka_heads:
        sample = np.arange(min(PRINCIPAL_SAMPLE, len(train)))
        student.start_matryoshka_heads(train.targets(sample).vectors, part)
    return student, part


def _result(outcome: Outcome, student: DenseStudent, data: dict[str, TrainingData]) -> Result:
    dev: dict[tuple[int, str], Any] = {
        (row["step"], row["term"]): row["value"] for row in outcome.log if row["split"] == "dev"
    }
    kept = outcome.kept_step
    # Without step 0: the check asks whether training lowered the loss, also where step 0 is what is kept.
    lowest = min(value for (step, term), value in dev.items() if step and term == "total")
    return Result(
        metrics={
            **outcome.metrics,
            "texts_train": len(data["train"]),
            "dev_loss_before": round(dev[0, "total"], 4),
            "dev_loss_after": round(dev[kept, "total"], 4),
            "dev_neighbours_before": round(dev[0, "neighbours"], 4),
            "dev_neighbours_after": round(dev[kept, "neighbours"], 4),
            "parameters": sum(p.numel() for p in student.parameters()),
            "parameters_trained": sum(p.numel() for p in student.trained_parameters().values()),
        },
        checks=(
            Check(
                "dev_loss_fell",
                lowest < dev[0, "total"],
                f"dev loss {dev[0, 'total']:.4f} -> {lowest:.4f}",
                {"before": dev[0, "total"], "lowest": lowest},
            ),
        ),
    )
