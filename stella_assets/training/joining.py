"""A teacher that joins a student which others have taught: its rows of the full head start in closed form.

Random rows would be noise next to what was learnt: the first steps would be spent on them, and their gradients would
pull the encoder away from the first teachers. With the encoder as it is, the best rows are a least-squares solution.

Shapes: B texts of a batch, K dimensions that were taught before, J dimensions of the teachers that join.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from stella_assets.students import FULL
from stella_assets.students.dense.model import DenseStudent
from stella_assets.teachers.snapshot import Layout
from stella_assets.training.closed_form import fit_full_head
from stella_assets.training.data import TrainingData
from stella_assets.training.frozen import BLOCK_TEXTS, pooled_blocks
from stella_assets.training.head_losses import HeadLosses
from stella_assets.training.objective import Objective
from stella_assets.training.targets import teacher_part

# As many as the closed form needs for thousands of dimensions; the stage itself sees all of them.
JOINING_TEXTS = 131_072
"""Training texts that the rows of a teacher that joins are fitted to at most."""


def start_rows(
    student: DenseStudent,
    data: Mapping[str, TrainingData],
    layout: Layout,
    names: Sequence[str],
    taught_K: Tensor,
    stage: str,
) -> str:
    """Fit the rows of the full head that teach some teachers for the first time; all others stay as they are.

    Args:
        student: Changed in place.
        data: Splits `train` and `dev`.
        layout: Of the full head.
        names: The teachers, in the order of the layout.
        taught_K: Positions of the rows that were taught before; empty where the student is new.
        stage: Name of the stage, for progress.

    Returns:
        What was found, for the log.
    """
    rows_J = teacher_part(layout, names)
    theirs = {split: texts.of_teachers(names) for split, texts in data.items()}
    objective = Objective(HeadLosses.model_validate({"cosine": 1}))
    fit = fit_full_head(student, objective, f"{stage}: start", theirs, rows_J, JOINING_TEXTS)
    if len(taught_K):
        assert rows_J is not None, "other rows were taught before"
        _weigh(student, theirs["train"], layout, rows_J, taught_K)
    before, after = (row["value"] for row in fit.log if row["term"] == "total")
    return (
        f"{stage}: the rows of {', '.join(names)} start in closed form; cosine loss on dev texts {before:.4f} -> "
        f"{after:.4f} with ridge lambda {fit.ridge_lambda:g}"
    )


def _weigh(student: DenseStudent, train: TrainingData, layout: Layout, rows_J: Tensor, taught_K: Tensor) -> None:
    """Scale the new rows, so that the parts of the student's vectors are as long as the teachers' weights say."""
    squares_D = torch.from_numpy(np.repeat(np.square(layout.weights) / layout.dims, layout.dims))
    wanted = (squares_D[rows_J].sum() / squares_D[taught_K].sum()).sqrt().item()
    _, pooled_BH = next(pooled_blocks(student, train.first(BLOCK_TEXTS), "weigh"))
    with torch.no_grad():
        vectors_BD = student.head(FULL)(pooled_BH)
        found = vectors_BD[:, rows_J].norm(dim=1).mean() / vectors_BD[:, taught_K].norm(dim=1).mean()
    student.head(FULL).scale(wanted / found.item(), rows_J)
