"""Fifty times `kill -9` at random while a recipe embeds and writes its snapshot, then one run to the end.

    python -m benchmarks.kills [--kills 50]

The tables must equal those of an undisturbed run, row by row, and the store must be whole.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import typer
import yaml

from benchmarks import write_row
from storage.database import open_table, table_names
from storage.home import Home
from storage.integrity import verify_table
from storage.snapshot import Snapshot, snapshot_tags
from tests.conftest import TINY

STELLA = str(Path(sys.executable).with_name("stella"))
ASSETS = ("corpus", "teacher_vectors", "concatenated_vectors")


def write_recipe(folder: Path) -> Path:
    raw = {**TINY, "name": "kills"}
    raw["corpus"]["sources"][0] |= {"limit": 2000}
    raw["teachers"][0] |= {"unit_rows": 128, "max_length": 64}
    raw["teachers"][1] |= {"unit_rows": 128}
    path = folder / "kills.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def start(recipe: Path, home: Home) -> subprocess.Popen[bytes]:
    selected = [part for asset in ASSETS for part in ("--select", asset)]
    return subprocess.Popen(
        [STELLA, "run", str(recipe), *selected],
        env={**os.environ, "STELLA_HOME": str(home.root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def contents(home: Home) -> dict[str, object]:
    """Every row of every table, in the order of ids."""
    found: dict[str, object] = {}
    for name in table_names(home):
        if name.startswith("teacher_vectors."):
            found[name] = open_table(home, name).to_table().sort_by("id")
    (tag,) = snapshot_tags(home, "kills")
    snapshot = Snapshot.open(home, "kills", tag)
    rows = np.arange(len(snapshot))
    columns, block = snapshot.read(rows, ["id", "text", "source", "role", "split"])
    return {**found, "columns": columns, "vectors": block.tobytes()}


def main(kills: int = 50, seed: int = 0) -> None:
    """Kill, go on, and compare."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as root:
        recipe = write_recipe(Path(root))
        undisturbed, home = Home(Path(root) / "undisturbed"), Home(Path(root) / "killed")
        began = time.monotonic()
        assert start(recipe, undisturbed).wait() == 0
        duration = time.monotonic() - began
        ended, progress = 0, []
        for _ in range(kills):
            process = start(recipe, home)
            # Mostly while it works, sometimes while it starts; units of a tenth of the rows make it last.
            time.sleep(draw.uniform(0.2, 1.0) * duration)
            ended += process.poll() is not None
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            tables = [open_table(home, name) for name in table_names(home)]
            progress.append(sum(table.count_rows() for table in tables if table is not None))
            if ended:  # it got to the end in spite of the kills: begin anew
                ended = 0
                if contents(home) != contents(undisturbed):
                    raise SystemExit("the tables differ from those of an undisturbed run")
                home = Home(Path(root) / f"killed_{len(progress)}")
        assert start(recipe, home).wait() == 0
        damages = [damage for name in table_names(home) for damage in verify_table(home, name).damages]
        equal = contents(home) == contents(undisturbed)
    write_row(
        "kills",
        {
            "kills": kills,
            "undisturbed_seconds": round(duration, 1),
            "rows_after_each_kill": progress,
            "equal_row_by_row": equal,
            "damages": len(damages),
        },
    )
    assert equal
    assert not damages


if __name__ == "__main__":
    typer.run(main)
