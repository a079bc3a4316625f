"""Local files of tasks: where they are, what they contain, and their rows by split.

One layout serves custom tasks and mteb's own: a file `<task>.parquet`, or a folder `<task>/` with `corpus`, `queries`
and `qrels`. A column `split` assigns rows to splits; without it all rows are of the test split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stella_assets.core.errors import UserError
from stella_assets.storage.canonical import digest
from stella_assets.storage.files import file_digest_unless_changed
from stella_assets.storage.polars import pl

Splits = Mapping[str, Sequence[str]]
"""For a split of mteb's, the splits of a file that are read as it."""

OTHER_NAMES = {"_id": "id", "query-id": "query_id", "corpus-id": "doc_id", "labels": "label", "sentences": "text"}
"""Names that mteb's own data sets use for the same columns."""
REQUIRED = ("label", "score", "text", "sentence1", "sentence2", "query")
"""Columns that must not have missing values."""


class TaskDataError(UserError):
    """The data of a task cannot be used."""


def locate(folder: Path, task: str) -> Path | None:
    """The file or folder of a task in a folder of tasks, if it exists in the local layout.

    Args:
        folder: Of tasks.
        task: Name of the task.

    Returns:
        `<task>.parquet`, or the folder `<task>` if it contains `corpus.parquet`; None if there is neither.
    """
    # A file wins over a folder of the same name. `corpus.parquet` tells it from a folder in the hub's layout.
    for place in (folder / f"{task}.parquet", folder / task):
        if place.is_file() or (place / "corpus.parquet").is_file():
            return place
    return None


def content_digest(place: Path) -> str:
    """Digest of the content of a file, or of every file of a folder.

    Raises:
        TaskDataError: There is no such file, or the folder is empty.
    """
    found = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    # Hidden files are written by file managers and synchronisation tools, and are not data.
    files = [path for path in found if not path.name.startswith(".")]
    if not files:
        raise TaskDataError(f"{place}: no such file, or an empty folder.", "Correct the path.")
    # Relative paths: the same data in another folder has the same digest.
    return digest([[path.relative_to(place).as_posix(), file_digest_unless_changed(path)] for path in files])


def check_columns(path: Path, wanted: Sequence[str]) -> None:
    """Make sure that a Parquet file exists and has some columns, without reading its rows.

    Args:
        path: Of the file.
        wanted: Names of columns. A column under one of the names in `OTHER_NAMES` counts.

    Raises:
        TaskDataError: The file is missing, is not a Parquet file, or lacks a column.
    """
    columns = _columns(path)
    have = {OTHER_NAMES.get(name, name) for name in columns}
    if missing := [name for name in wanted if name not in have]:
        raise TaskDataError(
            f"{path}: has no column `{missing[0]}`; it has {', '.join(columns)}.",
            f"Rename or add it: this kind of task needs {', '.join(wanted)}.",
        )


def _columns(path: Path) -> list[str]:
    try:
        # The schema is in the footer: a check of many gigabytes of data reads a few kilobytes.
        return list(pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = "there is no such file" if not path.exists() else f"not a Parquet file ({error})"
        raise TaskDataError(f"{path}: {reason}.", "Correct the path, or replace the file.") from None


def read_table(path: Path, wanted: Sequence[str]) -> pl.DataFrame:
    """The rows of a Parquet file, its columns under their usual names.

    Args:
        path: Of the file.
        wanted: Names of columns that it must have.

    Raises:
        TaskDataError: As for `check_columns`.
    """
    check_columns(path, wanted)
    frame = pl.read_parquet(path)
    have = frame.columns
    return frame.rename({old: new for old, new in OTHER_NAMES.items() if old in have and new not in have})


def rows_of_split(path: Path, frame: pl.DataFrame, name: str, splits: Splits) -> pl.DataFrame:
    """The rows of one of mteb's splits.

    Args:
        path: Of the file, for messages.
        frame: All its rows.
        name: mteb's name of the split.
        splits: Which splits of the file are read as it.

    Raises:
        TaskDataError: There are none, or one has no text or no label.
    """
    wanted = splits.get(name, (name,))
    if "split" in frame.columns:
        part = frame.filter(pl.col("split").is_in(list(wanted))).drop("split")
    # Training on the rows that are scored would give scores that are too high, so `train` has no default.
    elif name == "train":
        raise TaskDataError(f"{path}: has no column `split`, so it has no `train` rows to learn from.", "Add it.")
    else:
        part = frame
    if part.is_empty():
        there = ", ".join(map(str, frame["split"].unique().sort())) if "split" in frame.columns else "none"
        raise TaskDataError(
            f"{path}: no rows of split {' or '.join(wanted)}; it has {there}.",
            f"Say under `evaluation.splits` which of them are read as `{name}`.",
        )
    # Public test sets often come without labels; a null would be scored as a class of its own.
    require_filled(path, part, [column for column in REQUIRED if column in part.columns], f" of split {name}")
    return part


def require_filled(path: Path, rows: pl.DataFrame, columns: Sequence[str], which: str = "") -> None:
    """Make sure that no value is missing.

    Args:
        path: Of the file, for messages.
        rows: Of the file.
        columns: That must have a value in each row.
        which: Rows these are, for messages.

    Raises:
        TaskDataError: One has none.
    """
    for column in columns:
        if empty := rows[column].null_count():
            raise TaskDataError(
                f"{path}: {empty:,} of {len(rows):,} rows{which} have no `{column}`.",
                "Fill them in or remove them; test sets are often published without labels.",
            )


def by_split(parts: Mapping[str, pl.DataFrame]) -> Any:
    """A `DatasetDict` of the rows of each split."""
    from datasets import DatasetDict

    return DatasetDict({name: to_dataset(part) for name, part in parts.items()})


def to_dataset(rows: Any) -> Any:
    """A `Dataset` of a polars frame or of dictionaries."""
    from datasets import Dataset

    return Dataset.from_polars(rows) if isinstance(rows, pl.DataFrame) else Dataset.from_list(list(rows))
