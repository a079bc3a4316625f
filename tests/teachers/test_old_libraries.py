"""A real older pair of libraries, from the package index: transformers 4.42 and sentence-transformers 2.7, as
NV-Embed-v2 needs them, with code in its style that runs on nothing newer."""

import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stella_assets.core.devices import Compute
from stella_assets.core.environments import EnvironmentConfig, Environments, making
from stella_assets.core.errors import UserError
from stella_assets.core.models import code_digest, model_folder
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.kinds import SentenceTransformersTeacher
from stella_assets.teachers.teacher_vectors import Reference, TeacherVectors, fingerprints
from tests.snapshots import Corpus
from tests.teachers.test_isolated import SHARED
from tests.teachers.test_teachers import PACKAGED, TEXTS

CODE = Path(__file__).with_name("old_code")
WANTED = ("torch==2.13.0", "transformers==4.42.4", "sentence-transformers==2.7.0", "einops==0.8.0", "numpy<2")
LINES = [*TEXTS, "A longer text about graphs and their shortest paths. " * 9, "", "1"]

pytestmark = pytest.mark.slow


@dataclass
class Published:
    """The environment, and a model that was made in it, with the vectors that were computed there directly."""

    environment: EnvironmentConfig
    compute: Compute
    folder: Path
    expected: dict[str, np.ndarray]

    def teacher(self, **settings: Any) -> SentenceTransformersTeacher:
        known = {
            "name": "old",
            "kind": "sentence_transformers",
            "licence": "CC-BY-NC-4.0",
            "model": str(self.folder),
            "trust_remote_code": True,
            "code_digest": code_digest(self.folder),
            "dtype": "float32",
            "environment": self.environment,
            "prompts": {"query": "Instruct: find\nQuery: "},
            "max_length": 64,
        }
        return SentenceTransformersTeacher.model_validate({**known, **settings})


def pinned(folder: Path) -> tuple[str, ...]:
    """What pip would install here now, with hashes, as `uv pip compile --generate-hashes` writes it."""
    report = folder / "report.json"
    options = ["--dry-run", "--ignore-installed", "--only-binary", ":all:", "--quiet", "--report", str(report)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *WANTED], check=True)
    installed = [(each["metadata"], each["download_info"]) for each in json.loads(report.read_text())["install"]]
    return tuple(
        f"{metadata['name']}=={metadata['version']} --hash=sha256:{download['archive_info']['hashes']['sha256']}"
        for metadata, download in installed
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    root = tmp_path_factory.mktemp("old")
    environments = Environments(Workspace(root / "home"), True, SHARED)
    config = EnvironmentConfig(requirements=pinned(root))
    with pytest.MonkeyPatch.context() as monkeypatch:
        # The hashes are of files in pip's indexes; uv may be set up with others.
        monkeypatch.setattr(making, "find_program", lambda _name: None)
        environment = environments.require(config, "teacher 'old'")
    packaged = SentenceTransformersTeacher.model_validate(
        {"name": "a", "kind": "sentence_transformers", "licence": "MIT", "model": PACKAGED}
    )
    folder, texts, vectors = root / "model", root / "texts.json", root / "vectors.npz"
    texts.write_text(json.dumps(LINES))
    command = [str(environment.program), "-I", str(CODE / "publish.py"), folder, model_folder(packaged), texts, vectors]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(root / "cache")}
    subprocess.run(list(map(str, command)), check=True, env=offline)
    expected = {name: rows / np.linalg.norm(rows, axis=1, keepdims=True) for name, rows in np.load(vectors).items()}
    yield Published(config, Compute("cpu", 1, environments=environments), folder, expected)
    shutil.rmtree(root)  # more than a gigabyte


def test_vectors_are_those_of_the_older_libraries_themselves(published: Published):
    model = published.teacher().open(Path(), published.compute)
    for role in ("document", "query"):
        cosines = (model.encode(LINES, role) * published.expected[role]).sum(axis=1)
        assert cosines.min() > 0.9999
    assert np.abs((published.expected["document"] * published.expected["query"]).sum(axis=1)).min() < 0.999
    small = published.teacher(dense_folder="2_Dense_16", max_length=16).open(Path(), published.compute)
    assert small.dim == published.teacher(dense_folder="2_Dense_16").check() == 16
    assert (small.encode(LINES, "document") * published.expected["small"]).sum(axis=1).min() > 0.9999
    rounded = published.teacher(dtype="bfloat16").open(Path(), published.compute)
    assert (rounded.encode(LINES, "document") * published.expected["document"]).sum(axis=1).min() > 0.99


def test_the_fingerprint_names_the_older_versions(published: Published):
    described = published.teacher().open(Path(), published.compute).describe("document")
    assert {"transformers==4.42.4", "sentence-transformers==2.7.0", "einops==0.8.0"} < set(
        described["environment"]["packages"]
    )
    assert (described["pooling"], described["dim"]) == ("mean", 48)


def test_its_vectors_are_stored_in_units_like_any_others(published: Published, tmp_path: Path):
    teacher, corpus = published.teacher(unit_rows=16), Corpus(range(40))
    model = teacher.open(Path(), published.compute)
    reference = Reference(model.dim, 0, fingerprints(model), "")
    vectors = TeacherVectors(teacher, Path(), reference, Workspace(tmp_path))
    assert vectors.fill(corpus, published.compute, logging.getLogger("test")) == 40
    stored = vectors.embed(LINES, "document", published.compute).astype(np.float32)
    assert (stored * published.expected["document"]).sum(axis=1).min() > 0.9999


def test_a_hub_model_with_code_of_another_repository_runs_offline_and_pinned(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cache, commit, later = tmp_path / "hub", "1" * 40, "2" * 40
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_TOKEN", "secret")
    folder = cache / "models--org--latent" / "snapshots" / commit
    shutil.copytree(published.folder, folder)
    repository = cache / "models--org--code"
    for name, text in ((commit, None), (later, "raise RuntimeError('the code of main ran')")):
        (repository / "snapshots" / name).mkdir(parents=True)
        for file in folder.glob("*_latent.py"):
            (repository / "snapshots" / name / file.name).write_text(text or file.read_text())
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(later)
    for file in folder.glob("*_latent.py"):
        file.unlink()
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {key: f"org/code--{value}" for key, value in config["auto_map"].items()}
    (folder / "config.json").write_text(json.dumps(config))
    pinned = {"model": "org/latent", "revision": commit, "code_digest": None, "code_revision": commit}
    model = published.teacher(**pinned).open(Path(), published.compute)
    assert (model.encode(LINES, "query") * published.expected["query"]).sum(axis=1).min() > 0.9999
    with pytest.raises(UserError, match="set `code_revision` to that commit"):
        published.teacher(**{**pinned, "code_revision": None}).open(Path(), published.compute).encode(LINES, "query")
    with pytest.raises(UserError, match="the code of main ran"):
        published.teacher(**{**pinned, "code_revision": later}).open(Path(), published.compute).encode(LINES, "query")


def test_without_the_environment_the_message_says_which_one_would_run_it(published: Published):
    with pytest.raises(UserError) as failed:
        published.teacher(environment=None).open(Path(), published.compute).encode(LINES, "document")
    for word in ("4.42.4", "2.7.0", "environment", "transformers==4.42.4", "sentence-transformers==2.7.0"):
        assert word in str(failed.value)
