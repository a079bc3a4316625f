"""Scoring is killed with `kill -9` at random moments, and no pair is paid or scored twice."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from stella_assets.storage.journal import Journal
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.scorers import PairScorerConfig, asked, local
from tests.faults.api_kills import counts, stand_in
from tests.teachers.scorers.conftest import World, make_world
from tests.teachers.scorers.test_local import scorer as cross_encoder
from tests.teachers.scorers.test_local import with_head
from tests.teachers.scorers.test_paid import scorer as service

ROOT = Path(__file__).parents[3]
QUERIES, PAIRS = 240, 720
CONCURRENCY, CANDIDATES = 2, 4
KILLS, READY = 5, "ready"


def made(root: Path, target: str) -> tuple[World, PairScorerConfig]:
    """The world, and a scorer: of the service at an address, or of the model in a folder."""
    asked.UNIT_PAIRS, local.UNIT_PAIRS = 64, 40
    world = make_world(Workspace(root / "home"), QUERIES)
    if target.startswith("http"):
        from stella_assets.core.devices import Compute
        from stella_assets.core.runner import Runner
        from stella_assets.core.services import Services

        services = Services(world.workspace, {}.get, "tiny")
        world.runner = Runner(world.workspace, world.runner.log, Compute("cpu", threads=1, services=services))
        return world, service(target, key=None, limits={"concurrency": CONCURRENCY})
    return world, cross_encoder(Path(target), batch_size=8)


def start(root: Path, target: str) -> subprocess.Popen[str]:
    """Score in a process of its own; it is returned when it begins."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", __name__, str(root), target]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == READY, process.communicate()[1]
    return process


def stored(root: Path) -> int:
    """Bytes of scores that are kept: in journals, or in tables."""
    return sum(path.stat().st_size for suffix in ("journal", "lance") for path in root.glob(f"home/**/*.{suffix}"))


def killed_often(root: Path, target: str) -> tuple[pl.DataFrame, int]:
    """The scores of a run that was killed again and again soon after it kept some more, and how often it was."""
    moments, kills = random.Random(3), 0
    while kills < KILLS:
        process, before = start(root, target), stored(root)
        while process.poll() is None and stored(root) == before:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.03))
        process.kill()
        _, said = process.communicate()
        if process.returncode != -signal.SIGKILL:
            break
        kills += 1
    else:
        process = start(root, target)
        _, said = process.communicate()
    assert process.returncode == 0, said
    world, scorer = made(root, target)
    table, _ = world.score(scorer)
    return table, kills


@pytest.mark.slow
def test_no_pair_is_paid_twice_but_those_that_were_in_flight_at_a_kill(tmp_path: Path):
    with stand_in() as address:
        table, kills = killed_often(tmp_path, address)
        answered = counts(address)["texts"]
        assert kills == KILLS
        assert len(table) == PAIRS
        world, _ = made(tmp_path, address)
        (folder,) = world.workspace.api.glob("*/journal/*")
        assert len(Journal(folder, 2)) == PAIRS
        assert PAIRS <= answered <= PAIRS + kills * CONCURRENCY * CANDIDATES
        undisturbed, other = made(tmp_path / "other", address)
        assert undisturbed.score(other)[0].equals(table)
    print(f"PAID {answered} of {PAIRS} pairs, {kills} kills")


@pytest.mark.slow
def test_a_model_that_was_killed_scores_what_is_missing_and_ends_in_the_same_scores(tmp_path: Path, published):
    model = with_head(published("bert"), tmp_path, 1)
    undisturbed, other = made(tmp_path / "other", str(model))
    expected, _ = undisturbed.score(other)
    table, kills = killed_often(tmp_path / "killed", str(model))
    assert kills >= 2
    assert table.drop("score").equals(expected.drop("score"))
    assert table["score"].to_list() == pytest.approx(expected["score"].to_list(), abs=1e-6)


if __name__ == "__main__":
    world, scorer = made(Path(sys.argv[1]), sys.argv[2])
    print(READY, flush=True)
    world.score(scorer)
