"""Two artefacts of one teacher are compared by the vectors of the texts that both corpora have."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from stella_assets.core.devices import Compute
from stella_assets.core.manifest import Identity, Manifest
from stella_assets.core.step import Artefact, Deviation, Result, Step
from stella_assets.storage.artefacts import MANIFEST
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.deviation import compare_vectors
from stella_assets.teachers.kinds import StaticTeacher
from stella_assets.teachers.teacher_vectors import REFERENCE, Reference, TeacherVectors, fingerprints
from tests.snapshots import Corpus
from tests.teachers.test_static import model2vec, table

CPU = Compute("cpu", threads=1)


def numbers_of(artefact: Artefact, _workspace: Workspace) -> Corpus:
    return Corpus(json.loads((artefact.folder / "numbers.json").read_text()))


CORPUS: Step[Corpus] = Step("tiny", "corpus", "1", {}, lambda _context: Result(), read=numbers_of)


def write_artefact(workspace: Workspace, manifest: Manifest) -> Artefact:
    folder = workspace.artefacts / manifest.identity.asset / manifest.identity.key
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(manifest.to_json())
    return Artefact(manifest.identity.asset, folder, manifest)


def encoded(workspace: Workspace, model: Path, numbers: Sequence[int]) -> Artefact:
    """The artefact of a teacher's vectors of some numbered texts."""
    corpus = write_artefact(workspace, Manifest(Identity("corpus", "1", {"numbers": list(numbers)}, {}), {}))
    (corpus.folder / "numbers.json").write_text(json.dumps(list(numbers)))
    made = write_artefact(workspace, Manifest(Identity("teacher", "1", {}, {"corpus": corpus.digest}), {}))
    teacher = StaticTeacher(name="words", kind="static", licence="MIT", model=str(model))
    opened = teacher.open(Path(), CPU)
    reference = Reference(opened.dim, len(numbers), fingerprints(opened), "")
    TeacherVectors(teacher, Path(), reference, workspace).fill(Corpus(numbers), CPU, logging.getLogger("test"))
    (made.folder / REFERENCE).write_text(json.dumps(asdict(reference)))
    return made


@pytest.fixture
def workspaces(tmp_path: Path) -> tuple[Workspace, Workspace]:
    return Workspace(tmp_path / "before"), Workspace(tmp_path / "now")


def deviation(workspaces: tuple[Workspace, Workspace], before: Artefact, now: Artefact) -> Deviation:
    return compare_vectors(CORPUS, before, workspaces[0], now, workspaces[1])


@pytest.mark.slow
def test_nearly_equal_vectors_are_tolerated_and_others_are_not(workspaces: tuple[Workspace, Workspace], tmp_path: Path):
    noise = np.random.default_rng(1).normal(0, 1e-3, table().shape).astype(np.float32)
    before = encoded(workspaces[0], model2vec(tmp_path / "a"), range(60))
    close = encoded(workspaces[1], model2vec(tmp_path / "b", embeddings=table() + noise), range(60))
    found = deviation(workspaces, before, close)
    assert found.tolerated
    assert found.measured.startswith("least cosine 0.999")
    far = encoded(Workspace(tmp_path / "far"), model2vec(tmp_path / "c", embeddings=table(seed=5)), range(60))
    assert not deviation((workspaces[0], Workspace(tmp_path / "far")), before, far).tolerated


def test_of_two_corpora_the_common_texts_are_compared(workspaces: tuple[Workspace, Workspace], tmp_path: Path):
    model = model2vec(tmp_path / "a")
    before, now = encoded(workspaces[0], model, range(40)), encoded(workspaces[1], model, range(30, 70))
    assert deviation(workspaces, before, now) == Deviation(True, "least cosine 1.000000, tolerance 0.999")
    apart = Workspace(tmp_path / "apart")
    other = encoded(apart, model, range(100, 110))
    assert deviation((workspaces[0], apart), before, other) == Deviation(False, "the corpora have no text in common")


@pytest.mark.slow
def test_other_dimensions_and_a_lost_corpus_are_reported(workspaces: tuple[Workspace, Workspace], tmp_path: Path):
    before = encoded(workspaces[0], model2vec(tmp_path / "a"), range(20))
    narrow = encoded(workspaces[1], model2vec(tmp_path / "b", embeddings=table()[:, :4].copy()), range(20))
    assert deviation(workspaces, before, narrow) == Deviation(False, "6 dimensions before, 4 now")
    for file in (workspaces[0].artefacts / "corpus").glob("*/*"):
        file.unlink()
    assert deviation(workspaces, before, before).measured == "a corpus is gone"
