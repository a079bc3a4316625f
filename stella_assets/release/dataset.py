"""The data set of a recipe as a folder that `datasets.load_dataset` reads: Parquet shards by split, and a card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stella_assets.core.errors import UserError
from stella_assets.core.markup import markdown_table
from stella_assets.core.runner import Runner
from stella_assets.core.step import Step
from stella_assets.core.templates import render
from stella_assets.corpus.contamination import Contamination
from stella_assets.corpus.read import CorpusTexts
from stella_assets.corpus.tables import TEXTS
from stella_assets.corpus.tally import SPLITS
from stella_assets.storage.codecs import vectors_to_arrow
from stella_assets.storage.files import new_folder
from stella_assets.teachers.teacher_vectors import TeacherVectors

# With 4,096 float16 dimensions, the vectors of a shard take 0.8 GB.
SHARD_ROWS = 100_000
BATCH_ROWS = 8192


class ExportError(UserError):
    """The data set cannot be written there."""


@dataclass(frozen=True)
class DatasetInputs:
    """What a data set is made of.

    Attributes:
        description: The recipe's, for the card.
        recipe_digest: Of what the recipe says, for the card.
        corpus: The texts.
        vectors: Each teacher's vectors, by name.
        contamination: What of the texts resembles evaluation texts; None where they were not compared with any.
    """

    description: str
    recipe_digest: str
    corpus: Step[CorpusTexts]
    vectors: Mapping[str, Step[TeacherVectors]]
    contamination: Step[Contamination] | None


def export_dataset(
    inputs: DatasetInputs,
    to: Path,
    teachers: Sequence[str],
    runner: Runner,
    on_rows: Callable[[int], object] = lambda _rows: None,
) -> list[Path]:
    """Write `data/<split>-*.parquet` and `README.md`.

    Args:
        inputs: What the data set is made of.
        to: A new or an empty folder.
        teachers: Names of teachers; each adds a column of its unit vectors, float16.
        runner: Finds the artefacts.
        on_rows: Told how many rows were written.

    Returns:
        The files.

    Raises:
        ExportError: The folder is not empty, or the recipe has no such teacher.
        NotMaterialisedError: The corpus or the vectors were not made yet.
    """
    # Old shards next to new ones would be read as rows of the same split.
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ExportError(f"{to}: is not an empty folder.", "Name a new one.")
    if unknown := [name for name in teachers if name not in inputs.vectors]:
        raise ExportError(
            f"teacher {unknown[0]!r}: the recipe does not have it.", f"It has {', '.join(inputs.vectors)}."
        )
    with new_folder(to) as draft:
        _write_dataset(inputs, draft, {name: runner.read(inputs.vectors[name]) for name in teachers}, runner, on_rows)
    return [to / "README.md", *sorted((to / "data").iterdir())]


def _write_dataset(
    inputs: DatasetInputs,
    to: Path,
    columns: Mapping[str, TeacherVectors],
    runner: Runner,
    on_rows: Callable[[int], object],
) -> None:
    texts = runner.read(inputs.corpus)
    # One column only: the texts themselves are read batch by batch.
    splits = np.concatenate([np.asarray(batch.column(0).to_pylist()) for batch in texts.scan(["split"])])
    # Texts that a teacher does not take have no vector.
    left_out = [vectors.left_out(texts) for vectors in columns.values()]
    (to / "data").mkdir()
    for split in SPLITS:
        rows = np.setdiff1d(np.flatnonzero(splits == split), np.concatenate([np.empty(0, np.int64), *left_out]))
        # Rounded up. An empty split gets one empty shard, so that `load_dataset` knows it.
        count = max(-(-len(rows) // SHARD_ROWS), 1)
        for number in range(count):
            path = to / "data" / f"{split}-{number:05d}-of-{count:05d}.parquet"
            _write(path, texts, rows[number * SHARD_ROWS :][:SHARD_ROWS], columns, on_rows)
    (to / "README.md").write_text(_card(inputs, runner, columns), encoding="utf-8")


def _write(
    path: Path,
    texts: CorpusTexts,
    rows: np.ndarray,
    columns: Mapping[str, TeacherVectors],
    on_rows: Callable[[int], object],
) -> None:
    writer: pq.ParquetWriter | None = None
    # At least one batch, which writes the schema.
    for start in range(0, max(len(rows), 1), BATCH_ROWS):
        table = texts.take(rows[start : start + BATCH_ROWS], TEXTS.schema.names)
        for name, vectors in columns.items():
            table = table.append_column(name, _vectors_of(table, vectors))
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
        on_rows(len(table))
    assert writer is not None
    writer.close()


def _vectors_of(rows: pa.Table, vectors: TeacherVectors) -> pa.Array:
    """The teacher's vectors of some texts, as a column."""
    block_ND = vectors.fetch(rows.column("id").to_pylist(), rows.column("role").to_pylist())
    # `datasets` reads a list of fixed size as an array without offsets.
    return vectors_to_arrow(block_ND)


def _card(inputs: DatasetInputs, runner: Runner, columns: Mapping[str, TeacherVectors]) -> str:
    texts = runner.read(inputs.corpus)
    contamination = runner.find(inputs.contamination) if inputs.contamination else None
    found = runner.read(inputs.contamination).tasks().drop("example").to_dicts() if inputs.contamination else []
    return render(
        __package__,
        "data_card.md.j2",
        name=inputs.corpus.recipe,
        description=inputs.description,
        recipe_digest=inputs.recipe_digest,
        corpus=runner.require(inputs.corpus).manifest,
        splits=SPLITS,
        vectors={name: vectors.dim for name, vectors in columns.items()},
        terms={name: vectors.teacher.stated_terms() for name, vectors in columns.items()},
        funnel_table=_markdown(texts.funnel()),
        licence_table=_markdown(texts.licences().to_dicts()),
        contamination=contamination and contamination.manifest,
        contamination_table=_markdown(found),
    )


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    return markdown_table(list(rows[0]), [list(row.values()) for row in rows]) if rows else ""
