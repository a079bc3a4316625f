"""The cost of 1% of new texts, as a share of the full job, without the constant part.

    python -m benchmarks.increment --data FOLDER

FOLDER holds Parquet files with a column `text`. `stella run` embeds texts of them with all-MiniLM-L6-v2 and writes the
snapshot and its statistics; then it runs again with 1% more texts. Two sizes separate the constant part (imports,
loading a model) from the part that grows with the job.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from benchmarks import Texts, write_row
from tests.conftest import TINY

STELLA = str(Path(sys.executable).with_name("stella"))
ASSETS = ("corpus", "teacher_vectors", "concatenated_vectors", "vector_stats")


def write_recipe(path: Path, files: list[Path], limit: int) -> Path:
    sources = [
        {"name": f"source_{file.stem}", "kind": "parquet", "path": str(file), "licence": "various", "limit": limit}
        for file in files
    ]
    teacher = {**TINY["teachers"][0], "max_length": 256, "unit_rows": 4096}
    corpus = {"sources": sources}
    path.write_text(yaml.safe_dump({**TINY, "name": "increment", "corpus": corpus, "teachers": [teacher]}))
    return path


def run(recipe: Path, workspace: Path) -> tuple[float, dict[str, Any]]:
    selected = [part for asset in ASSETS for part in ("--select", asset)]
    environment = {**os.environ, "STELLA_HOME": str(workspace)}
    started = time.perf_counter()
    subprocess.run([STELLA, "run", str(recipe), *selected], check=True, stdout=sys.stderr, env=environment)
    seconds = time.perf_counter() - started
    metrics = json.loads((workspace / "increment" / "teacher_vectors" / "minilm" / "manifest.json").read_text())[
        "metrics"
    ]
    return seconds, metrics


def full_and_increment(files: list[Path], texts: int) -> dict[str, float]:
    """Seconds of the full job on about `texts` texts, and of 1% more: the median of three increments."""
    limit = texts // len(files) // 100 * 100
    with tempfile.TemporaryDirectory() as root:
        workspace = Path(root) / "workspace"
        full, before = run(write_recipe(Path(root) / "full.yaml", files, limit), workspace)
        steps = [
            run(write_recipe(Path(root) / "more.yaml", files, limit + n * limit // 100), workspace) for n in (1, 2, 3)
        ]
    new = steps[0][1]["texts"] - before["texts"]
    assert all(metrics["embedded_now"] == new for _, metrics in steps)
    more = statistics.median(seconds for seconds, _ in steps)
    return {"texts": before["texts"], "new_texts": new, "full_seconds": full, "increment_seconds": more}


def main(
    data: Texts,
    texts: Annotated[int, typer.Option(help="Texts of the larger job, approximately.")] = 40_000,
) -> None:
    """Time the full job and 1% more texts, at two sizes."""
    large = [file for file in sorted(data.glob("*.parquet")) if file.stat().st_size > 300_000]
    files = large[:: max(1, len(large) // 10)]
    small, whole = full_and_increment(files, texts // 8), full_and_increment(files, texts)
    growth = {name: whole[name] - small[name] for name in whole}
    write_row(
        "increment",
        {
            "sizes": [{name: round(value, 1) for name, value in size.items()} for size in (small, whole)],
            "full_seconds_for_1000_texts": round(growth["full_seconds"] / growth["texts"] * 1000, 3),
            "increment_seconds_for_1000_texts": round(growth["increment_seconds"] / growth["texts"] * 1000, 3),
            "share_of_the_full_job_beyond_the_constant": round(growth["increment_seconds"] / growth["full_seconds"], 4),
            "constant_seconds": round(
                small["increment_seconds"] - growth["increment_seconds"] / growth["texts"] * small["texts"], 1
            ),
        },
    )


if __name__ == "__main__":
    typer.run(main)
