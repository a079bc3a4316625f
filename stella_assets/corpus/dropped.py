"""The table of dropped texts, which every step that removes texts writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from stella_assets.core.present import Rows, Shown
from stella_assets.core.step import Artefact
from stella_assets.corpus.sources.base import EXCERPT_CHARS
from stella_assets.corpus.tables import DROPPED
from stella_assets.storage.polars import pl
from stella_assets.storage.sorted_rows import SortedRows, write_in_groups

DROPPED_FILE = DROPPED.file
SHOWN_EXAMPLES = 12


def as_dropped(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows of shards, with `source`, `rule`, `value` and `detail` added, in the form of the table of dropped texts."""
    shown = excerpt("text", 2 * EXCERPT_CHARS)
    return compact(frame.with_columns(excerpt=shown).select(DROPPED.schema.names).cast(pl.Schema(DROPPED.schema)))


def no_dropped() -> pl.DataFrame:
    """The table without rows."""
    return pl.DataFrame(schema=pl.Schema(DROPPED.schema))


def excerpt(name: str, chars: int = EXCERPT_CHARS) -> pl.Expr:
    """How the texts of a column begin, each on one line."""
    # Cut first: the pattern then runs over a few characters and not over whole texts.
    return pl.col(name).str.slice(0, chars).str.replace_all(r"\s+", " ")


def compact(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame in memory of its own: a few rows taken from a shard would keep all texts of the shard in memory."""
    return pl.DataFrame(frame.to_arrow())


def write_dropped(frames: Iterable[pl.DataFrame], folder: Path, scratch: Path) -> None:
    """Write the table, in an order that does not depend on the frames.

    Args:
        frames: Made by `as_dropped`.
        folder: Of the artefact.
        scratch: For temporary files.
    """
    # Sorted on disk by all columns: bounded memory, and bytes that do not depend on the order of frames.
    rows = SortedRows(scratch / "dropped")
    for frame in frames:
        rows.add(frame)
    write_in_groups(folder / DROPPED_FILE, DROPPED.schema, rows.parts(DROPPED.schema.names))


def read_dropped(folder: Path) -> pl.LazyFrame:
    """The dropped texts of an artefact; none for one without the table."""
    # The funnel and `explain` ask every step, also those that remove nothing.
    path = folder / DROPPED_FILE
    return pl.scan_parquet(path) if path.is_file() else no_dropped().lazy()


def show_dropped(artefact: Artefact) -> Mapping[str, Shown]:
    """Counts of the dropped texts by source and rule, and examples."""
    dropped = read_dropped(artefact.folder)
    counts = dropped.group_by("source", "rule").agg(texts=pl.len()).sort("source", "rule").collect()
    examples = dropped.select("rule", "value", "detail", "excerpt").head(SHOWN_EXAMPLES).collect()
    return {"dropped": Rows(counts.to_dicts()), "examples": Rows(examples.to_dicts())}
