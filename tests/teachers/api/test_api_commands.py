"""The commands with a teacher that costs money: costs before anything is sent, costs after, and the key nowhere."""

import copy
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from tests.api_server import StandIn
from tests.faults.home import RECIPE, Project
from tests.teachers.api.conftest import DIM, KEY, VARIABLE, settings

STELLA = str(Path(sys.executable).with_name("stella"))


class Commands:
    def __init__(self, root: Path, address: str) -> None:
        self.project = Project(root)
        self.project.begin()
        raw: dict[str, Any] = copy.deepcopy(RECIPE)
        raw["teachers"] = [settings(address, unit_rows=32), raw["teachers"][1]]
        raw["release"] |= {"dimension": DIM + 8, "distribution": "internal"}
        (root / "recipes" / "kills.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
        self.said = ""

    def stella(self, *arguments: str, key: str | None = KEY) -> str:
        environment = {**os.environ, "STELLA_HOME": str(self.project.workspace.root)}
        environment |= {} if key is None else {VARIABLE: key}
        done = subprocess.run(
            [STELLA, *arguments],
            cwd=self.project.root, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.said += done.stdout + done.stderr
        assert key is None or done.returncode == 0, done.stderr
        return " ".join((done.stdout + done.stderr).split())


def watch_processes(until: threading.Event, seen: list[bool]) -> None:
    """Look for the key in the command lines of all processes."""
    while not until.is_set():
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.append(KEY.encode() in path.read_bytes())
            except OSError:  # it has ended
                continue
        time.sleep(0.2)


@pytest.mark.slow
def test_costs_are_told_before_and_after_and_the_key_nowhere(tmp_path: Path, address: str, stand_in: StandIn) -> None:
    commands, ended, seen = Commands(tmp_path, address), threading.Event(), []
    watcher = threading.Thread(target=watch_processes, args=(ended, seen))
    watcher.start()
    try:
        for before in (commands.stella("plan", "kills"), commands.stella("validate", "kills", "--no-rehearsal")):
            assert "120 texts to embed" in before
            assert "upper bound: a token for each byte" in before
            assert "price of the recipe" in before
        assert "is not scored" in commands.stella("validate", "kills", "--no-rehearsal")
        refused = commands.stella("run", "kills", key=None)
        assert f"the environment variable {VARIABLE} is not set" in refused
        assert stand_in.counts.requests == 0
        ran = commands.stella("run", "kills")
        assert ran.index("upper bound") < ran.index("texts are to be sent")
        sent = stand_in.counts
        with duckdb.connect(str(commands.project.workspace.statistics), read_only=True) as views:
            rows = views.sql("SELECT recipe, teacher, purpose, texts, tokens, dollars FROM api_costs").fetchall()
        (canaries, (*who, texts, tokens, dollars)) = sorted(rows, key=lambda row: row[2])
        assert (canaries[2:4], who) == (("canaries", 64), ["kills", "far", "vectors"])
        assert (texts, tokens) == (sent.texts - 64, sent.tokens - canaries[4])
        assert dollars == pytest.approx(tokens * 0.5 / 1e6)
        card = (tmp_path / "home" / "kills" / "release" / "README.md").read_text(encoding="utf-8")
        assert f"| far | {texts} |" in card
        lineage = json.loads((tmp_path / "home" / "kills" / "release" / "lineage.json").read_text(encoding="utf-8"))
        assert lineage["teacher_vectors/far"]["cost"]["tokens"] == tokens
        assert "0 of 0" not in commands.stella("plan", "kills")
        commands.stella("vectors", "verify", "kills")
        assert stand_in.counts.texts == sent.texts
        shutil.rmtree(tmp_path / "home" / "lancedb")
        assert "is complete" in commands.stella("run", "kills", key=None)  # from the journal
        again = tmp_path / "again"
        commands.stella("reproduce", "kills", "--into", str(again))
        assert stand_in.counts.texts == texts + 64  # from the journal
    finally:
        ended.set()
        watcher.join()
    assert seen
    assert not any(seen)
    assert KEY not in commands.said
    files = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 100
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
