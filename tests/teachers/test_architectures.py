"""Every architecture as a teacher: its stored vectors are its authors', in this process and in another one."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from stella_assets.core import devices
from stella_assets.core.devices import Compute
from stella_assets.core.errors import UserError
from stella_assets.storage.notes import read_note
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.known_vectors import NOTE, examined_file
from stella_assets.teachers.teacher_vectors import Reference, TeacherVectors, fingerprints
from tests.models import MODELS, TEXTS
from tests.models.hub import write_commit
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


@pytest.fixture
def bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A processor that computes in bfloat16, as GPUs do; others compute the same more slowly."""
    (tmp_path / "cpuinfo").write_text("flags\t\t: fpu avx512_bf16\n")
    monkeypatch.setattr(devices, "CPUINFO", tmp_path / "cpuinfo")
    devices.computes_in_bfloat16.cache_clear()
    yield
    devices.computes_in_bfloat16.cache_clear()


ENCODERS = [name for name in MODELS if "static" not in name and "model2vec" not in name]
FLOAT32_ONLY = ("deberta",)


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in {"deberta", "bert"} else pytest.mark.slow) for name in ENCODERS]
)
def test_a_teacher_computes_in_the_devices_format_or_in_the_one_that_its_code_can(name: str, published: Published):
    right = as_teacher(name, published(name))
    config, wanted = right.with_values(dtype="auto"), "float32" if name in FLOAT32_ONLY else "bfloat16"
    assert config.external_versions(CPU)["dtype"] == config.encoder_limits(CPU).dtype == wanted
    model = config.open(Path(), CPU)
    vectors = model.encode(TEXTS, "document")
    assert (vectors * right.open(Path(), CPU).encode(TEXTS, "document")).sum(axis=1).min() > 0.995
    # The number format decides the fingerprint, and not how it was chosen.
    assert model.fingerprint("query") == right.with_values(dtype=wanted).open(Path(), CPU).fingerprint("query")


def test_a_format_that_the_models_code_does_not_compute_in_is_refused(published: Published):
    with pytest.raises(UserError, match=r"`dtype` is bfloat16.*'deberta' compute in float32 only.*Remove `dtype`"):
        as_teacher("deberta", published("deberta"), dtype="bfloat16").check()


@pytest.mark.usefixtures("bfloat16")
def test_the_format_of_a_hub_model_is_decided_when_it_is_loaded(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = published("deberta")
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    hub = as_teacher("deberta", folder, model="org/deberta", revision="a" * 40, dtype="auto")
    # Nothing is downloaded to know the identity.
    assert hub.external_versions(CPU)["dtype"] == "bfloat16"
    write_commit(tmp_path, "org/deberta", "a" * 40, files)
    expected = as_teacher("deberta", folder).open(Path(), CPU).encode(TEXTS, "document")
    model = hub.open(Path(), CPU)
    np.testing.assert_allclose(model.encode(TEXTS, "document"), expected, atol=1e-5)
    assert model.describe("document")["dtype"] == "float32"
