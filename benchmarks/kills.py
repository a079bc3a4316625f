"""Fifty times `kill -9` at random moments while a recipe embeds and writes its snapshot, then one complete run.

    python -m benchmarks.kills [--kills 50]

Each kill comes at a random moment after the run's first write to the store. The tables must equal those of an
undisturbed run, row by row, and the store must not be damaged. When a run ends before its kill, its store is compared,
and a new one is begun.
"""

import copy
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import typer
import yaml

from benchmarks import write_row
from stella_assets.storage.database import open_table, table_names
from stella_assets.storage.integrity import verify_table
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.snapshot import Snapshot, snapshot_tags
from stella_assets.teachers.tables import VECTORS
from tests.conftest import TINY

STELLA = str(Path(sys.executable).with_name("stella"))
ASSETS = ("corpus", "teacher_vectors", "concatenated_vectors")


def write_recipe(folder: Path) -> Path:
    raw = copy.deepcopy({**TINY, "name": "kills"})
    raw["corpus"]["sources"][0] |= {"limit": 2000}
    raw["teachers"][0] |= {"unit_rows": 128, "max_length": 64}
    raw["teachers"][1] |= {"unit_rows": 128}
    path = folder / "kills.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def start(recipe: Path, workspace: Workspace) -> subprocess.Popen[bytes]:
    selected = [part for asset in ASSETS for part in ("--select", asset)]
    return subprocess.Popen(
        [STELLA, "run", str(recipe), *selected],
        env={**os.environ, "STELLA_HOME": str(workspace.root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def contents(workspace: Workspace) -> dict[str, object]:
    """Every row of every table, in the order of ids."""
    found: dict[str, object] = {}
    for name in table_names(workspace):
        if name.startswith(VECTORS):
            found[name] = open_table(workspace, name).to_table().sort_by("id")
    (tag,) = snapshot_tags(workspace, "kills")
    snapshot = Snapshot.open(workspace, "kills", tag)
    rows = np.arange(len(snapshot))
    columns, block = snapshot.read(rows, ["id", "text", "source", "role", "split"])
    return {**found, "columns": columns, "vectors": block.tobytes()}


def files(workspace: Workspace) -> int:
    """Files in the store."""
    return sum(path.is_file() for path in Path(workspace.vectors).rglob("*"))


def wait_for_a_write(process: subprocess.Popen[bytes], workspace: Workspace) -> None:
    before = files(workspace)
    while process.poll() is None and files(workspace) == before:
        time.sleep(0.01)


def kill_after(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Kill the process and its children, unless it ends before."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return alive


def main(kills: int = 50, seed: int = 0) -> None:
    """Kill, continue, and compare."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as root:
        recipe = write_recipe(Path(root))
        undisturbed, workspace = Workspace(Path(root) / "undisturbed"), Workspace(Path(root) / "killed_0")
        process = start(recipe, undisturbed)
        wait_for_a_write(process, undisturbed)
        began = time.monotonic()
        assert process.wait() == 0
        working = time.monotonic() - began
        expected, ended = contents(undisturbed), 0
        progress: list[int] = []
        while len(progress) < kills:
            process = start(recipe, workspace)
            wait_for_a_write(process, workspace)
            # Squared, so that kills come soon after the first write: a continued run has less to do.
            if kill_after(process, draw.random() ** 2 * working):
                tables = [open_table(workspace, name) for name in table_names(workspace)]
                progress.append(sum(table.count_rows() for table in tables if table is not None))
            else:  # it ended before
                assert process.returncode == 0
                if contents(workspace) != expected:
                    raise SystemExit("the tables differ from those of an undisturbed run")
                ended += 1
                workspace = Workspace(Path(root) / f"killed_{ended}")
        assert start(recipe, workspace).wait() == 0
        equal = contents(workspace) == expected
        workspaces = [Workspace(Path(root) / f"killed_{number}") for number in range(ended + 1)]
        damages = [
            d
            for workspace in workspaces
            for name in table_names(workspace)
            for d in verify_table(workspace, name).damages
        ]
    write_row(
        "kills",
        {
            "kills": kills,
            "seconds_of_writing_undisturbed": round(working, 1),
            "rows_after_each_kill": progress,
            "stores_finished": len(workspaces),
            "equal_row_by_row": equal,
            "damages": len(damages),
        },
    )
    assert equal
    assert not damages


if __name__ == "__main__":
    typer.run(main)
