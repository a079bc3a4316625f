"""Real tokens, and teachers whose vectors are sums of random word vectors: something that can be learnt in seconds."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from storage.workspace import Workspace

from stella_assets.recipe import Recipe, Stage
from stella_assets.students.dense import Student
from stella_assets.training.data import TrainingData
from stella_assets.training.tokens import TokenTable, write_tokens
from storage.snapshot import Snapshot
from storage.snapshot_writer import SnapshotWriter, TeacherColumn
from tests.snapshots import MemoryTexts

WORDS = "array graph node sort search path network file open close read write matrix vector sum".split()
WIDE, NARROW = 24, 8
TEXTS, DEV = 240, 40


@dataclass(frozen=True)
class Lesson:
    """Texts with the vectors of two teachers, the splits of it, and a student's recipe."""

    recipe: Recipe
    snapshot: Snapshot
    tokens: TokenTable

    def data(self, *teachers: str) -> dict[str, TrainingData]:
        return {split: TrainingData(self.snapshot, self.tokens, split, teachers or None) for split in ("train", "dev")}

    def student(self, **changes: object) -> Student:
        spec = self.recipe.student.model_copy(update={"matryoshka_dims": (8,), **changes})
        return Student.initialise(spec, WIDE + NARROW, seed=3)

    def stage(self, **changes: object) -> Stage:
        raw = self.recipe.stages[2].model_dump(exclude_defaults=True) | {"steps": 9, "checkpoint_every": 3}
        return Stage.model_validate({**raw, **changes})


def make_lesson(workspace: Workspace, recipe: Recipe, tokens: Path) -> Lesson:
    random = np.random.default_rng(0)
    chosen = [random.integers(0, len(WORDS), size=random.integers(2, 12)) for _ in range(TEXTS)]
    texts = [
        {"id": f"{i:032x}", "text": " ".join(WORDS[w] for w in words), "source": "s", "section": "s",
         "role": "document" if i % 3 else "query", "split": "dev" if i < DEV else "train"}
        for i, words in enumerate(chosen)
    ]  # fmt: skip
    columns = []
    for name, dim, weight in (("wide", WIDE, 1.0), ("narrow", NARROW, 0.5)):
        meaning = random.standard_normal((len(WORDS), dim))
        target = np.stack([meaning[words].sum(axis=0) for words in chosen])
        target /= np.linalg.norm(target, axis=1, keepdims=True)
        columns.append(
            TeacherColumn(name, dim, weight, {}, lambda ids, _roles, t=target: t[[int(key, 16) for key in ids]])
        )
    SnapshotWriter(workspace, "tiny").write("one", MemoryTexts(texts), columns, {})
    rows = pa.RecordBatch.from_pylist([{key: row[key] for key in ("id", "role", "text")} for row in texts])
    list(write_tokens(tokens, recipe.student, [rows.slice(0, 100), rows.slice(100)]))
    return Lesson(recipe, Snapshot.open(workspace, "tiny", "one"), TokenTable(tokens))


@pytest.fixture
def lesson(workspace: Workspace, tiny: Recipe, tmp_path: Path) -> Lesson:
    return make_lesson(workspace, tiny, tmp_path / "tokens.arrow")
