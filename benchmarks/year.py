"""A simulated year of weekly re-distillations on a small corpus, as the schedule would do them.

    python -m benchmarks.year [--weeks 52]

Some weeks bring nothing, one a bad file, one a worse teacher, and one is killed in the middle. What is served must
never score less than what was served before on the same tasks, no text may be embedded twice, and the disk must not
grow with the weeks. Prints the log, a line a week.
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
from storage.database import open_table, table_names
from storage.releases import Releases
from tests.redistil.weeks import WORSE, Weeks

FIRST, WEEKLY_TEXTS = 800, 24
EMPTY_EVERY, BAD_FILE, WORSE_TEACHER, KILLED = 4, 10, 20, 30
MAX_LENGTH, STEPS = 32, 120
MOST_GROWTH = 1.5
"""Of the disk, from a tenth of the year to its end."""


def live(weeks: Weeks, week: int) -> Entry:
    """What happens in a week."""
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


def main(weeks: Annotated[int, typer.Option(min=1, help="How many.")] = 52) -> None:
    """Let a year go by."""
    logging.getLogger("weeks").addHandler(logging.NullHandler())
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        year = Weeks(Path(folder) / "year", STEPS)
        entries, disk, fallen = [], [], 0
        for week in range(weeks):
            entry = live(year, week)
            entries.append(entry)
            disk.append(year.megabytes())
            fallen += entry.verdict == "promoted" and not _gained(year)
            print(f"{entry} ({entry.embedded} embedded, {entry.seconds:.0f} s, {disk[-1]:,.0f} MB)", flush=True)
        texts = pq.read_metadata(year.workspace.current("weekly", "corpus") / "corpus.parquet").num_rows
        rows = {
            name: open_table(year.workspace, name).count_rows()
            for name in table_names(year.workspace)
            if name.startswith("teacher_vectors.")
        }
        assert len(Ledger(year.workspace, "weekly").entries()) == weeks
        served = Releases(year.workspace, "weekly").names()
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
        "releases_kept": len(served),
        "served_scored_less": fallen,
        "megabytes_early": round(early),
        "megabytes_at_most": round(max(disk)),
        "seconds": round(time.monotonic() - began),
    }
    write_row("year", row)
    if fallen or twice or max(disk) > MOST_GROWTH * early or len(served) > 3:
        sys.exit("the year did not go as it should")


def _gained(year: Weeks) -> bool:
    """Whether what was promoted scores as much as what was served before, on the tasks of its week."""
    last = Ledger(year.workspace, "weekly").entries()[-1]
    if "first release" in last.why:
        return True
    before, now = (float(word.rstrip(",;")) for word in last.why.split("mean ")[1].split(" -> "))
    return now >= before


if __name__ == "__main__":
    typer.run(main)
