"""A simulated year of weekly re-distillations on a small corpus, as the schedule would start them.

    python -m benchmarks.year [--weeks 52]

Some weeks bring nothing, one a bad file, one a worse teacher, and one is killed in the middle. The active release must
never score less than the one before on the same tasks, no text may be embedded twice, and the disk usage must not grow
with the weeks. Prints the ledger, one line per week.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import typer

from benchmarks import write_row
from stella_assets.redistil.ledger import Entry, Ledger
from stella_assets.storage.database import open_table, table_names
from stella_assets.storage.releases import Releases
from stella_assets.teachers.tables import VECTORS
from tests.redistil.weeks import WORSE, Weeks

FIRST, WEEKLY_TEXTS = 800, 24
EMPTY_EVERY, BAD_FILE, WORSE_TEACHER, KILLED = 4, 10, 20, 30
MAX_LENGTH, STEPS = 32, 120
MAX_GROWTH = 1.5
"""Of the disk usage, from a tenth of the year to its end."""


def simulate_week(weeks: Weeks, week: int) -> Entry:
    """Add texts, damage what the week damages, and re-distil."""
    if week == 0:
        weeks.add(week, FIRST)
    elif week % EMPTY_EVERY:
        weeks.add(week, WEEKLY_TEXTS)
    bad = weeks.add_bad_file(week) if week == BAD_FILE else None
    if week in (WORSE_TEACHER, WORSE_TEACHER + 1):
        weeks.teacher(WORSE if week == WORSE_TEACHER else MAX_LENGTH)
    if week == KILLED:
        weeks.kill()
    entry = weeks.redistil(week)
    if bad is not None:
        bad.unlink()
        weeks.add(week, WEEKLY_TEXTS)
    return entry


def main(weeks: Annotated[int, typer.Option(min=1, help="How many weeks.")] = 52) -> None:
    """Simulate the weeks, and check the rules at the end."""
    logging.getLogger("weeks").addHandler(logging.NullHandler())
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        year = Weeks(Path(folder) / "year", STEPS)
        entries, disk, fallen = [], [], 0
        for week in range(weeks):
            entry = simulate_week(year, week)
            entries.append(entry)
            disk.append(year.megabytes())
            fallen += entry.verdict == "promoted" and not _gained(year)
            print(f"{entry} ({entry.embedded} embedded, {entry.seconds:.0f} s, {disk[-1]:,.0f} MB)", flush=True)
        texts = pq.read_metadata(year.workspace.current("weekly", "corpus") / "corpus.parquet").num_rows
        rows = {
            name: open_table(year.workspace, name).count_rows()
            for name in table_names(year.workspace)
            if name.startswith(VECTORS)
        }
        assert len(Ledger(year.workspace, "weekly").entries()) == weeks
        kept = Releases(year.workspace, "weekly").names()
    verdicts = {verdict: sum(entry.verdict == verdict for entry in entries) for verdict in {e.verdict for e in entries}}
    embedded = sum(entry.embedded for entry in entries)
    by_worse = entries[WORSE_TEACHER].embedded if weeks > WORSE_TEACHER else 0
    twice = max(0, embedded - by_worse - texts)
    early = max(disk[: max(2, weeks // 10)])
    row = {
        "weeks": weeks,
        "verdicts": verdicts,
        "texts": texts,
        "embedded": embedded,
        "embedded_twice": twice,
        "stored_vectors": rows,
        "releases_kept": len(kept),
        "active_scored_less": fallen,
        "megabytes_early": round(early),
        "megabytes_largest": round(max(disk)),
        "seconds": round(time.monotonic() - started),
    }
    write_row("year", row)
    if fallen or twice or max(disk) > MAX_GROWTH * early or len(kept) > 3:
        sys.exit("A rule was broken; the row above says which.")


def _gained(year: Weeks) -> bool:
    """Whether the promoted release scores at least as much as the one before it, on the tasks of its week."""
    last = Ledger(year.workspace, "weekly").entries()[-1]
    if "first release" in last.why:
        return True
    before, now = (float(word.rstrip(",;")) for word in last.why.split("mean ")[1].split(" -> "))
    return now >= before


if __name__ == "__main__":
    typer.run(main)
