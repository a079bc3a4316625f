"""What a hundredth of new texts costs, of the full job and beyond what a run costs that has nothing to do.

    python -m benchmarks.increment --data FOLDER

FOLDER holds Parquet files with a column `text`. The real command embeds some ten thousand texts of them with
all-MiniLM-L6-v2, writes the snapshot and its statistics; then runs again with nothing new; then with 1% more.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from benchmarks import write_row
from tests.conftest import TINY

STELLA = str(Path(sys.executable).with_name("stella"))
ASSETS = ("corpus", "teacher_vectors", "concatenated_vectors", "vector_stats")


def write_recipe(path: Path, files: list[Path], limit: int) -> Path:
    sources = [
        {"name": file.stem, "kind": "parquet", "path": str(file), "licence": "various", "limit": limit}
        for file in files
    ]
    teacher = {**TINY["teachers"][0], "max_length": 256, "unit_rows": 4096}
    corpus = {"sources": sources, "min_chars": 20, "max_chars": 4000}
    path.write_text(yaml.safe_dump({**TINY, "name": "increment", "corpus": corpus, "teachers": [teacher]}))
    return path


def run(recipe: Path, home: Path) -> tuple[float, dict[str, Any]]:
    selected = [part for asset in ASSETS for part in ("--select", asset)]
    environment = {**os.environ, "STELLA_HOME": str(home)}
    started = time.perf_counter()
    subprocess.run([STELLA, "run", str(recipe), *selected], check=True, capture_output=True, env=environment)
    seconds = time.perf_counter() - started
    facts = json.loads((home / "increment" / "teacher_vectors" / "minilm" / "manifest.json").read_text())["facts"]
    return seconds, facts


def main(
    data: Annotated[Path, typer.Option(help="Folder of Parquet files with a column `text`.")],
    texts: Annotated[int, typer.Option(help="Texts of the full job, about.")] = 10_000,
) -> None:
    """Time the full job, a run with nothing new, and a run with 1% more texts."""
    large = [file for file in sorted(data.glob("*.parquet")) if file.stat().st_size > 300_000]
    files = large[:: max(1, len(large) // 10)]
    limit = texts // len(files) // 100 * 100
    with tempfile.TemporaryDirectory() as root:
        home = Path(root) / "home"
        full, full_facts = run(write_recipe(Path(root) / "full.yaml", files, limit), home)
        nothing, _ = run(Path(root) / "full.yaml", home)
        more, more_facts = run(write_recipe(Path(root) / "more.yaml", files, limit + limit // 100), home)
    new = more_facts["texts"] - full_facts["texts"]
    assert more_facts["embedded_now"] == new
    write_row(
        "increment",
        {
            "texts": full_facts["texts"],
            "new_texts": new,
            "full_seconds": round(full, 1),
            "nothing_new_seconds": round(nothing, 1),
            "increment_seconds": round(more, 1),
            "share_of_new_texts": round(new / full_facts["texts"], 4),
            "share_of_cost_beyond_the_constant": round((more - nothing) / (full - nothing), 4),
        },
    )


if __name__ == "__main__":
    typer.run(main)
