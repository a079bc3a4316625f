"""`stella verify` names all that is damaged, and `--repair` takes it out of the way."""

import json
import logging
import os
import subprocess
from pathlib import Path

import polars as pl
import pytest

from stella_assets.core.runner import Runner
from stella_assets.core.step import BuildContext, Result, Step
from stella_assets.release.promotion import promote_release
from stella_assets.storage.shards import ShardStore
from stella_assets.storage.workspace import Workspace
from tests.cli.test_vectors import STELLA
from tests.snapshots import Corpus, Teacher, write


def build(context: BuildContext) -> Result:
    (context.folder / "model.safetensors").write_text("weights")
    (context.folder / "plot.svg").write_text("a plot")
    metrics = {"mean_score": 1.0, "dimensions": 2, "licence": "MIT"}
    return Result(metrics=metrics, unhashed_files=("plot.svg",))


RELEASE = Step("tiny", "release", "1", {}, build)


@pytest.fixture
def home(workspace: Workspace, log: logging.Logger) -> Workspace:
    promote_release(Runner(workspace, log).make(RELEASE), "tiny", workspace, "v1")
    ShardStore(workspace, "cleaned").get("0a", lambda: pl.DataFrame({"id": ["a"]}))
    write(workspace, "one", Corpus(range(20)), Teacher("small", 3))
    return workspace


def stella(home: Workspace, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "STELLA_HOME": str(home.root)}
    command = [STELLA, "verify", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def flip(path: Path) -> None:
    content, times = bytearray(path.read_bytes()), path.stat()
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # nothing but the bytes tells


def test_a_whole_home_is_whole(home: Workspace):
    done = stella(home)
    assert (done.returncode, done.stdout.strip()) == (0, "Nothing is damaged."), done.stderr


def test_a_copied_home_is_verified_where_there_is_no_project(home: Workspace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(home.root)
    assert stella(home).returncode == 0
    data = next(Path(home.vectors).glob("*/data/*"))
    flip(data)
    done = stella(home)
    assert (done.returncode, done.stdout.strip()[:11]) == (1, "Damaged: 1."), done.stderr
    assert data.name in done.stderr


def test_a_repair_of_an_artefact_leaves_no_link_behind_and_is_done_at_once(workspace: Workspace, log: logging.Logger):
    made = Runner(workspace, log).make(RELEASE)
    flip(made.folder / "model.safetensors")
    repaired = stella(workspace, "--repair")
    assert repaired.returncode == 0, repaired.stdout
    assert "Damaged: 1, of which 0 are left." in repaired.stdout
    assert not workspace.current("tiny", "release").is_symlink()
    assert Runner(workspace, log).make(RELEASE).digest == made.digest
    assert stella(workspace).returncode == 0


def test_everything_that_is_damaged_is_named_and_taken_out_of_the_way(home: Workspace, log: logging.Logger):
    artefact = home.current("tiny", "release").resolve()
    shard = ShardStore(home, "cleaned").path("0a")
    lance = next(Path(home.vectors).glob("*/data/*"))
    victims = [artefact / "plot.svg", artefact / "model.safetensors", shard, lance]
    for victim in victims:
        flip(victim)
    (home.root / "tiny" / "gone").symlink_to("../artefacts/gone/0123456789abcdef")
    found = stella(home, "--json")
    assert found.returncode == 1, found.stderr
    named = " ".join(row["what"] + row["place"] for row in json.loads(found.stdout)["damages"])
    for name in (*(victim.name for victim in victims), "tiny/gone"):
        assert name in named
    repaired = stella(home, "--repair")
    assert repaired.returncode == 1  # the snapshot's texts are not known here, and the release has to be made again
    assert "are left" in repaired.stdout
    assert not shard.exists()
    assert not (home.root / "tiny" / "gone").is_symlink()
    assert not artefact.exists()
    assert len(list((home.root / ".damaged").iterdir())) == 1  # a release's weights are moved, not deleted
    Runner(home, log).make(RELEASE)
    left = json.loads(stella(home, "--json").stdout)["damages"]
    assert [row["place"].partition(",")[0] for row in left] == ["tiny.concatenated_vectors"]
