"""`stella validate` and `stella run` with a teacher that needs an environment of its own."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import write_recipe
from tests.wheels import make_wheel, use_index

STELLA = str(Path(sys.executable).with_name("stella"))


@pytest.fixture
def recipe(tmp_path: Path, raw: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe whose teacher's requirements are in a file next to it, and borrow this environment's libraries."""
    monkeypatch.setenv("STELLA_HOME", str(tmp_path / "workspace"))
    monkeypatch.delenv("STELLA_ALLOW_ENVIRONMENTS", raising=False)
    use_index(tmp_path / "wheels", monkeypatch)
    path_file = {"borrowed.pth": f"{Path(np.__file__).parents[1]}\n"}
    line = make_wheel(tmp_path / "wheels", "sentence-transformers", version("sentence-transformers"), path_file)
    (tmp_path / "old.txt").write_text(line + "\n")
    (tmp_path / "a.txt").write_text(
        "\n".join(f"A sentence about the number {i} and its square {i * i}." for i in range(40))
    )
    source = {"name": "mine", "licence": "CC0-1.0", "kind": "text", "path": "./a.txt", "unit": "line"}
    raw["corpus"] = {"sources": [source], "dev": 0.2, "test": 0.2, "deduplicate": None}
    raw["teachers"] = [{**raw["teachers"][0], "environment": {"requirements": "old.txt"}}]
    return write_recipe(tmp_path, raw)


def stella(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "1000"}
    return subprocess.run([STELLA, *arguments], capture_output=True, text=True, env=environment, check=False)


def test_an_environment_is_announced_by_validate_and_refused_by_run_before_any_work(recipe: Path, tmp_path: Path):
    home = tmp_path / "workspace"
    needed = f"sentence-transformers=={version('sentence-transformers')}"
    valid = stella("validate", str(recipe), "--no-rehearsal")
    assert valid.returncode == 0, valid.stderr
    assert "teacher 'minilm' needs Python 3" in valid.stderr
    assert "with 1 package of old.txt" in valid.stderr
    assert "was not made yet, and making it is not allowed without --allow-environments" in valid.stderr
    refused = stella("run", str(recipe))
    assert refused.returncode == 2
    for word in ("teacher 'minilm'", needed, "--allow-environments", "STELLA_ALLOW_ENVIRONMENTS=1"):
        assert word in refused.stderr
    assert not (home / "artefacts").exists()
    assert not (home / "environments").exists()
    (tmp_path / "old.txt").write_text(f"{needed}\n")
    unpinned = stella("validate", str(recipe), "--no-rehearsal")
    assert unpinned.returncode == 2
    assert "has no hash" in unpinned.stderr
    assert "uv pip compile --generate-hashes" in unpinned.stderr


@pytest.mark.slow
def test_a_run_that_is_allowed_makes_the_environment_and_encodes_in_it(recipe: Path, tmp_path: Path):
    home = tmp_path / "workspace"
    words = ["run", str(recipe), "--select", "teacher_vectors/minilm"]
    done = stella(*words, "--allow-environments")
    assert done.returncode == 0, done.stderr
    assert "it is made with 1 package, pinned." in " ".join(done.stderr.split())  # lines are as wide as a terminal
    manifest = json.loads((home / "tiny" / "teacher_vectors" / "minilm" / "manifest.json").read_text())
    assert "source:environment" in manifest["identity"]["inputs"]
    assert manifest["metrics"]["embedded_now"] == manifest["metrics"]["texts"] > 20
    # With the environment there, neither another run nor an audit has to be allowed anything.
    assert "exists." in stella("validate", str(recipe), "--no-rehearsal").stderr
    assert stella(*words).returncode == 0
    audit = stella("vectors", "verify", str(recipe), "--json")
    assert audit.returncode == 0, audit.stderr
    (compared,) = json.loads(audit.stdout)["recomputed"]
    assert compared["least_cosine"] > 0.9999
