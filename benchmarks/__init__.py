"""Benchmarks of speed and quality. Each writes ratios or differences within one run as a JSON row."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stella_assets.core.manifest import environment

os.environ.setdefault("LANCE_LOG", "error")
RESULTS = Path(__file__).parent / "results"


def write_row(benchmark: str, row: dict[str, Any]) -> None:
    """Append a row to `benchmarks/results/<benchmark>.jsonl` and print it."""
    RESULTS.mkdir(exist_ok=True)
    full = {"benchmark": benchmark, "at": datetime.now(UTC).isoformat(timespec="seconds"), **row, **environment()}
    with (RESULTS / f"{benchmark}.jsonl").open("a") as file:
        file.write(json.dumps(full) + "\n")
    print(json.dumps(row, indent=1))
