"""The steps `stage_1`, `stage_2` and so on: each goes on from the student of the one before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from storage.workspace import Workspace

from stella_assets.core.devices import processes
from stella_assets.core.manifest import Check
from stella_assets.core.models import model_digest
from stella_assets.core.step import Artefact, BuildContext, Result, Step, those_of
from stella_assets.recipe import Recipe, Stage
from stella_assets.teachers.concatenate import concatenation_step, open_snapshot
from stella_assets.teachers.semantic_duplicates import rows_left_out, semantic_duplicates_step
from stella_assets.training.start import read_start
from stella_assets.training.tokens import TokenTable, tokens_step
from storage.statistics import TRAINING_LOG, write_table

if TYPE_CHECKING:
    from stella_assets.students.dense import Student
    from stella_assets.training.data import TrainingData

CODE_VERSION = "2"
MODEL_FOLDER = "model"
START = "start"
"""The source of the first stage that names what it continues from."""
LOG_FILE = "training_log.parquet"
PRINCIPAL_SAMPLE = 4096
KEPT_RULES = {"best": "lowest dev loss (`total`), the earliest of equal ones", "last": "the last step"}


Outcome = tuple[list[dict[str, Any]], dict[str, Any]]
"""The rows of the training log, and metrics."""


def stage_step(recipe: Recipe, number: int) -> Step:
    """The step that makes `stage_<number>`, counting from 1."""
    settings = {
        "seed": recipe.seed,
        "student": recipe.student.settings("model", "revision"),
        "stage": recipe.stages[number - 1].settings(),
    }
    return Step(
        recipe=recipe.name,
        name=f"stage_{number}",
        code_version=CODE_VERSION,
        settings=settings,
        needs=those_of(
            concatenation_step(recipe),
            tokens_step(recipe),
            semantic_duplicates_step(recipe),
            stage_step(recipe, number - 1) if number > 1 else None,
        ),
        sources=lambda workspace: _what_it_begins_with(recipe, workspace) if number == 1 else {},
        build=lambda context: _train(recipe, number, context),
    )


def _what_it_begins_with(recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    start = read_start(workspace, recipe.name)
    return {"student": model_digest(recipe.student)} | ({START: start.digest} if start else {})


def model_folder(artefact: Artefact) -> Path:
    """The SentenceTransformers folder of a stage."""
    return artefact.folder / MODEL_FOLDER


def _train(recipe: Recipe, number: int, context: BuildContext) -> Result:
    from stella_assets.training.job import run_as_job

    if context.launch is None:
        return train_here(recipe, number, context)
    return run_as_job(recipe, number, context, context.launch)


def train_here(recipe: Recipe, number: int, context: BuildContext) -> Result:
    """Train a stage in this process, which may be one of several that a launcher started for it."""
    from stella_assets.students.dense import Student

    stage, name = recipe.stages[number - 1], f"stage_{number}"
    data = _read_data(recipe, stage, name, context)
    layout = data["train"].snapshot.layout
    if number == 1:
        start = read_start(context.workspace, recipe.name)
        weights = start.folder(context.workspace) / MODEL_FOLDER if start else None
        student = Student.initialise(recipe.student, layout.dim, recipe.seed_of("heads"), weights)
    else:
        student = Student.load(model_folder(context.inputs[f"stage_{number - 1}"]), recipe.student)
    if stage.matryoshka_heads and not any(earlier.matryoshka_heads for earlier in recipe.stages[: number - 1]):
        student.start_matryoshka_heads(
            data["train"].targets(np.arange(min(PRINCIPAL_SAMPLE, len(data["train"])))).vectors
        )
    size = sum(p.numel() for p in student.parameters()) * 4
    context.workspace.require_space(
        size * 10, f"{name}, a student of {size / 2**20:,.0f} MiB with its optimiser and its checkpoints"
    )
    if stage.method == "closed_form":
        log, metrics = _solve(stage, name, student, data)
    else:
        log, metrics = _descend(stage, name, student, data, recipe.seed_of(name), context)
    if processes().is_main_process:
        student.save(context.folder / MODEL_FOLDER, layout.dim, recipe.student.prompts)
        write_table(context.folder / LOG_FILE, TRAINING_LOG, log)
    dev = {(row["step"], row["term"]): row["value"] for row in log if row["split"] == "dev"}
    kept = metrics.get("kept_step", 1)
    lowest = min(value for (step, term), value in dev.items() if step and term == "total")
    return Result(
        metrics={
            **metrics,
            "texts_train": len(data["train"]),
            "dev_loss_before": round(dev[0, "total"], 4),
            "dev_loss_after": round(dev[kept, "total"], 4),
            "dev_neighbours_before": round(dev[0, "neighbours"], 4),
            "dev_neighbours_after": round(dev[kept, "neighbours"], 4),
            "parameters": size // 4,
            "parameters_trained": sum(p.numel() for p in student.parameters() if p.requires_grad),
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


def _solve(stage: Stage, name: str, student: Student, data: dict[str, TrainingData]) -> Outcome:
    from stella_assets.training.solve import solve_stage

    solved = solve_stage(student, stage, name, data)
    return solved.log, {
        "method": "closed_form",
        "ridge_lambda": solved.ridge_lambda,
        "exponent": solved.exponent,
        "tried": {name: round(loss, 4) for name, loss in solved.tried.items()},
    }


def _descend(
    stage: Stage, name: str, student: Student, data: dict[str, TrainingData], seed: int, context: BuildContext
) -> Outcome:
    from safetensors.torch import save_file

    from stella_assets.training.loop import train_stage

    trained = train_stage(student, stage, name, data, seed, context.scratch, context.log.info)
    if processes().is_main_process:
        save_file(trained.optimizer, context.folder / "optimizer.safetensors")
    return trained.log, {
        "method": "descent",
        "steps": trained.steps,
        "batch_size": stage.batch,
        "kept_step": trained.kept_step,
        "kept_rule": KEPT_RULES[stage.checkpoint_selection],
        "texts_seen": trained.texts,
        "epochs": round(trained.texts / len(data["train"]), 2),
        "texts_per_second": round(trained.texts_per_second, 1),
        "tokens_per_second": round(trained.tokens_per_second),
        "waiting_for_data": round(trained.waiting, 4),
        "resumed_at_step": trained.resumed_at,
    }


def _read_data(recipe: Recipe, stage: Stage, name: str, context: BuildContext) -> dict[str, TrainingData]:
    from stella_assets.training.data import TrainingData

    snapshot = open_snapshot(recipe, context.inputs["concatenated_vectors"].manifest.identity.key, context.workspace)
    tokens = TokenTable.open(context.inputs["tokenised_texts"])
    alike = context.inputs.get("semantic_duplicates")
    left_out = {"train": rows_left_out(alike, snapshot)} if alike else {}
    data = {
        split: TrainingData(snapshot, tokens, split, stage.teachers, left_out.get(split)) for split in ("train", "dev")
    }
    if len(data["train"]) < (stage.batch or 2):
        raise ValueError(
            f"{name}: batch_size {stage.batch} is more than the {len(data['train'])} training texts. "
            "Lower `batch_size`, or add texts to the corpus."
        )
    if len(data["dev"]) < 2:
        raise ValueError(f"{name}: the corpus has no dev texts to measure on. Raise `corpus.dev`, or add texts.")
    return data
