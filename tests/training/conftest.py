"""Real tokens, and teachers whose vectors are sums of random word vectors: they can be learnt in seconds."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from stella_assets.core.devices import Compute
from stella_assets.storage.workspace import Workspace
from stella_assets.students import DenseConfig
from stella_assets.students.dense.model import DenseStudent
from stella_assets.teachers.snapshot import Snapshot
from stella_assets.teachers.snapshot_writer import SnapshotWriter, TeacherColumn
from stella_assets.training.data import TrainingData
from stella_assets.training.inputs import StageInputs
from stella_assets.training.snapshot_reference import SnapshotReference
from stella_assets.training.stages.base import StageContext
from stella_assets.training.stages.descent import Descent
from stella_assets.training.targets import teacher_part
from stella_assets.training.tokens import TokenTable, write_tokens
from tests.conftest import TINY
from tests.snapshots import MemoryTexts

LOG = logging.getLogger("training")
WORDS = "array graph node sort search path network file open close read write matrix vector sum".split()
WIDE, NARROW = 24, 8
TEXTS, DEV = 240, 40


@dataclass(frozen=True)
class Lesson:
    """Texts with the vectors of two teachers, its splits, and the settings of a student."""

    config: DenseConfig
    snapshot: Snapshot
    tokens: TokenTable

    def data(self, *teachers: str) -> dict[str, TrainingData]:
        return {split: TrainingData(self.snapshot, self.tokens, split, teachers or None) for split in ("train", "dev")}

    def student(self, **changes: object) -> DenseStudent:
        config = self.config.model_copy(update={"matryoshka_dims": (8,), **changes})
        return config.initialise(WIDE + NARROW, 3, Compute())

    def stage(self, **changes: object) -> Descent:
        raw = {**TINY["stages"][2], "steps": 9, "checkpoint_every": 3}
        return Descent.model_validate({**raw, **changes})

    def context(self, student: DenseStudent, folder: Path, *teachers: str, log: logging.Logger = LOG) -> StageContext:
        folder.mkdir(exist_ok=True)
        part = teacher_part(self.snapshot.layout, teachers or None)
        return StageContext("s", student, self.data(*teachers), 5, folder, folder, Compute(), log, part)


def make_lesson(workspace: Workspace, config: DenseConfig, tokens: Path) -> Lesson:
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
    list(write_tokens(tokens, config, [rows.slice(0, 100), rows.slice(100)]))
    return Lesson(config, Snapshot.open(workspace, "tiny", "one"), TokenTable(tokens))


@pytest.fixture
def config() -> DenseConfig:
    return DenseConfig.model_validate(TINY["student"])


@pytest.fixture
def lesson(workspace: Workspace, config: DenseConfig, tmp_path: Path) -> Lesson:
    return make_lesson(workspace, config, tmp_path / "tokens.arrow")


@pytest.fixture
def inputs(lesson: Lesson, workspace: Workspace, tmp_path: Path) -> StageInputs:
    for name in ("folder", "scratch"):
        (tmp_path / name).mkdir()
    return StageInputs(
        name="stage_1",
        stage=lesson.stage(),
        student=lesson.config.model_copy(update={"matryoshka_dims": (8,)}),
        seed_of_heads=1,
        seed_of_order=2,
        snapshot=SnapshotReference(workspace, "tiny", "one"),
        tokens=tmp_path / "tokens.arrow",
        left_out=None,
        previous=None,
        start=None,
        starts_matryoshka_heads=True,
        folder=tmp_path / "folder",
        scratch=tmp_path / "scratch",
        compute=Compute(),
    )
