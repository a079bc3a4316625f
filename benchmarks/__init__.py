"""Benchmarks of speed and quality. Each writes ratios or differences within one run as a JSON row."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from stella_assets.core.manifest import environment

os.environ.setdefault("LANCE_LOG", "error")
RESULTS = Path(__file__).parent / "results"


def _with_texts(folder: Path) -> Path:
    """Refuse a folder without texts before anything is computed."""
    if not any(folder.glob("*.parquet")):
        raise typer.BadParameter(f"{folder} has no Parquet files.")
    return folder


def _with_corpus(folder: Path) -> Path:
    """Refuse a folder without the parts that the benchmarks of a whole pipeline read."""
    for part in (folder / "corpus", folder / "eval"):
        if not part.is_dir():
            raise typer.BadParameter(f"{folder} has no folder `{part.name}`.")
    _with_texts(folder / "corpus")
    return folder


Texts = Annotated[
    Path,
    typer.Option(
        "--data", help="Folder of Parquet files with texts.", exists=True, resolve_path=True, callback=_with_texts
    ),
]
Data = Annotated[
    Path,
    typer.Option(
        "--data", help="Folder with corpus/ and eval/.", exists=True, resolve_path=True, callback=_with_corpus
    ),
]


def write_row(benchmark: str, row: dict[str, Any]) -> None:
    """Append a row to `benchmarks/results/<benchmark>.jsonl` and print it."""
    RESULTS.mkdir(exist_ok=True)
    full = {"benchmark": benchmark, "at": datetime.now(UTC).isoformat(timespec="seconds"), **row, **environment()}
    with (RESULTS / f"{benchmark}.jsonl").open("a") as file:
        file.write(json.dumps(full) + "\n")
    print(json.dumps(row, indent=1))
