"""The steps `stage_1`, `stage_2` and so on: each goes on from the student of the one before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stella_assets.manifest import Check
from stella_assets.models import model_digest
from stella_assets.recipe import Recipe, Stage
from stella_assets.step import Artefact, Result, Step, Workbench
from stella_assets.teachers.concatenate import concatenation_step, open_snapshot
from storage.statistics import TRAINING_LOG, write_table

CODE_VERSION = "1"
MODEL_FOLDER = "model"
LOG_FILE = "training_log.parquet"
PRINCIPAL_SAMPLE = 4096


def stage_step(recipe: Recipe, number: int) -> Step:
    """The step that makes `stage_<number>`, counting from 1."""
    settings = {
        "seed": recipe.seed,
        "student": recipe.student.settings("model", "revision"),
        "stage": recipe.stages[number - 1].settings(),
    }
    before = (stage_step(recipe, number - 1),) if number > 1 else ()
    return Step(
        recipe=recipe.name,
        name=f"stage_{number}",
        code_version=CODE_VERSION,
        settings=settings,
        needs=(concatenation_step(recipe), *before),
        sources=lambda: {"student": model_digest(recipe.student)} if number == 1 else {},
        build=lambda bench: _train(recipe, number, bench),
    )


def model_folder(artefact: Artefact) -> Path:
    """The SentenceTransformers folder of a stage."""
    return artefact.folder / MODEL_FOLDER


def _train(recipe: Recipe, number: int, bench: Workbench) -> Result:
    from safetensors.torch import save_file

    from stella_assets.training.checkpoint import optimizer_tensors
    from stella_assets.training.data import TrainingData
    from stella_assets.training.loop import train_stage
    from stella_assets.training.student import Student

    stage, name = recipe.stages[number - 1], f"stage_{number}"
    snapshot = open_snapshot(recipe, bench.inputs["concatenated_vectors"].manifest.identity.key, bench.home)
    data = {split: TrainingData(snapshot, split, recipe.student) for split in ("train", "dev")}
    _require_enough_texts(stage, name, data)
    if number == 1:
        heads = [snapshot.layout.dim, *(dim for dim in recipe.student.short_dims if dim != snapshot.layout.dim)]
        student = Student.initialise(recipe.student, heads, recipe.seed_of("heads"))
    else:
        student = Student.load(model_folder(bench.inputs[f"stage_{number - 1}"]), recipe.student.trust_remote_code)
    if stage.short_heads and not any(earlier.short_heads for earlier in recipe.stages[: number - 1]):
        sample = data["train"].read(np.arange(min(PRINCIPAL_SAMPLE, len(data["train"]))))
        student.start_short_heads(snapshot.layout.dim, sample.target_BD)
    size = sum(p.numel() for p in student.parameters()) * 4
    bench.home.require_space(
        size * 7, f"{name}, a student of {size / 2**20:,.0f} MiB with its optimiser and a checkpoint"
    )
    trained = train_stage(student, stage, name, data, recipe.seed_of(name), bench.scratch, bench.log.info)
    student.save(bench.folder / MODEL_FOLDER, snapshot.layout.dim, recipe.student.prompts)
    names = {p: n for n, p in student.named_parameters()}
    save_file(optimizer_tensors(trained.optimizer, names), bench.folder / "optimizer.safetensors")
    write_table(bench.folder / LOG_FILE, TRAINING_LOG, trained.log)
    dev = [row["value"] for row in trained.log if row["split"] == "dev" and row["term"] == "total"]
    return Result(
        facts={
            "steps": stage.steps,
            "texts_seen": stage.steps * stage.batch_texts,
            "epochs": round(stage.steps * stage.batch_texts / len(data["train"]), 2),
            "dev_loss_before": round(dev[0], 4),
            "dev_loss_after": round(dev[-1], 4),
            "texts_per_second": round(trained.texts_per_second, 1),
            "resumed_at_step": trained.resumed_at,
            "parameters": size // 4,
            "parameters_trained": sum(p.numel() for p in student.parameters() if p.requires_grad),
        },
        checks=(Check("dev_loss_fell", dev[-1] < dev[0], f"dev loss {dev[0]:.3f} -> {dev[-1]:.3f}"),),
    )


def _require_enough_texts(stage: Stage, name: str, data: dict[str, Any]) -> None:
    if len(data["train"]) < stage.batch_texts:
        raise ValueError(
            f"{name}: batch_texts {stage.batch_texts} is more than the {len(data['train'])} training texts. "
            "Lower `batch_texts`, or add texts to the corpus."
        )
    if not len(data["dev"]):
        raise ValueError(f"{name}: the corpus has no dev texts to measure on. Raise `corpus.dev`, or add texts.")
