"""Every architecture as a teacher: its stored vectors are its authors', in this process and in another one."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from stella_assets.core.devices import Compute
from stella_assets.storage.notes import read_note
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.known_vectors import NOTE, examined_file
from stella_assets.teachers.teacher_vectors import Reference, TeacherVectors, fingerprints
from tests.models import MODELS, TEXTS
from tests.models.second import as_teacher

CPU = Compute("cpu", threads=1)
Published = Callable[[str], Path]
Vectors = Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def second(published: Published, shared: Path) -> Vectors:
    """What one other process makes of all models: the pipeline would start one for each."""
    asked, answered = shared / "folders.json", shared / "vectors.npz"
    with FileLock(shared / "second.lock"):
        if not answered.is_file():
            asked.write_text(json.dumps({name: str(published(name)) for name in MODELS}))
            command = [sys.executable, "-W", "ignore", "-m", "tests.models.second", str(asked), str(answered)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-3000:]
    with np.load(answered, allow_pickle=False) as matrices:
        return {name: matrices[name] for name in matrices.files}


@pytest.mark.parametrize("name", MODELS)
def test_stored_vectors_are_those_of_sentence_transformers_in_every_process(
    name: str, published: Published, second: Vectors, tmp_path: Path
):
    config, workspace = as_teacher(name, published(name)), Workspace(tmp_path)
    file = examined_file(config, CPU, workspace)
    file.parent.mkdir()
    file.write_text(json.dumps({role: second[f"{name}.{role}"].tolist() for role in ("document", "query")}))
    model = config.open(Path(), CPU)
    assert config.check() in (model.dim, None)
    vectors = TeacherVectors(config, Path(), Reference(model.dim, 0, fingerprints(model), ""), workspace)
    stored = vectors.embed(TEXTS, "document", CPU).astype(np.float32)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    assert (stored * second[f"{name}.plain"]).sum(axis=1).min() >= 0.9999
    assert (stored * second[f"{name}.texts"]).sum(axis=1).min() >= 0.9999
    # Texts have vectors of their own, so that wrong ones would be seen.
    assert (stored @ stored.T)[np.triu_indices(len(stored), 1)].mean() < 0.99
    (table,) = vectors.tables()
    assert read_note(workspace, table, NOTE) is not None
