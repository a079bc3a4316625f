"""The data set of a recipe as a folder that `datasets.load_dataset` reads: Parquet shards by split, and a card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from storage.workspace import Workspace

from stella_assets.core.step import Artefact, NotMaterialisedError, Runner, Step
from stella_assets.corpus.build import FUNNEL_FILE, LICENCES_FILE, corpus_step
from stella_assets.corpus.contamination import TASKS_FILE, contamination_step
from stella_assets.corpus.read import CorpusTexts
from stella_assets.evaluation import tables
from stella_assets.recipe import Recipe
from stella_assets.teachers.encode import read_reference, teacher_step
from storage.statistics import TEXTS
from storage.vectors import VectorsByRole

SPLITS = ("train", "dev", "test")
SHARD_ROWS = 100_000
BATCH_ROWS = 8192


class ExportError(ValueError):
    """The data set cannot be written there."""


def export_dataset(
    recipe: Recipe,
    to: Path,
    teachers: Sequence[str],
    runner: Runner,
    on_rows: Callable[[int], object] = lambda _rows: None,
) -> list[Path]:
    """Write `data/<split>-*.parquet` and `README.md`; each teacher adds a column of its unit vectors, float16.

    Raises:
        ExportError: The folder is not empty, or the recipe has no such teacher.
        NotMaterialisedError: The corpus or the vectors were not made yet.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ExportError(f"{to}: is not an empty folder. Name a new one.")
    known = {teacher.name: teacher for teacher in recipe.teachers}
    if unknown := [name for name in teachers if name not in known]:
        raise ExportError(f"teacher {unknown[0]!r}: the recipe has {', '.join(known)}.")
    corpus = _made(runner, corpus_step(recipe))
    columns = {name: _Vectors(_made(runner, teacher_step(recipe, known[name])), runner.workspace) for name in teachers}
    texts = CorpusTexts(corpus)
    splits = np.concatenate([np.asarray(batch.column(0).to_pylist()) for batch in texts.scan(["split"])])
    (to / "data").mkdir(parents=True)
    files = []
    for split in SPLITS:
        rows = np.flatnonzero(splits == split)
        count = max(-(-len(rows) // SHARD_ROWS), 1)
        for number in range(count):
            path = to / "data" / f"{split}-{number:05d}-of-{count:05d}.parquet"
            _write(path, texts, rows[number * SHARD_ROWS :][:SHARD_ROWS], columns, on_rows)
            files.append(path)
    card = to / "README.md"
    card.write_text(_card(recipe, corpus, runner, columns), encoding="utf-8")
    return [card, *files]


class _Vectors:
    """A teacher's vectors by id."""

    def __init__(self, artefact: Artefact, workspace: Workspace) -> None:
        reference = read_reference(artefact)
        self.dim = reference.dim
        self._stored = VectorsByRole(workspace, reference.fingerprints, reference.dim)

    def of(self, rows: pa.Table) -> pa.Array:
        vectors = self._stored.fetch(rows.column("id").to_pylist(), rows.column("role").to_pylist())
        return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self.dim)


def _made(runner: Runner, step: Step) -> Artefact:
    artefact = runner.find(step)
    if artefact is None:
        raise NotMaterialisedError(
            f"{step.recipe}/{step.name}: was not made for this recipe as it stands. "
            f"Run `stella run {step.recipe} --select {step.name}`."
        )
    return artefact


def _write(
    path: Path, texts: CorpusTexts, rows: np.ndarray, columns: dict[str, _Vectors], on_rows: Callable[[int], object]
) -> None:
    writer: pq.ParquetWriter | None = None
    for start in range(0, max(len(rows), 1), BATCH_ROWS):
        table = texts.take(rows[start : start + BATCH_ROWS], TEXTS.names)
        for name, vectors in columns.items():
            table = table.append_column(name, vectors.of(table))
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
        on_rows(len(table))
    assert writer is not None
    writer.close()


def _card(recipe: Recipe, corpus: Artefact, runner: Runner, columns: dict[str, _Vectors]) -> str:
    from jinja2 import Environment, PackageLoader

    funnel = pl.read_parquet(corpus.folder / FUNNEL_FILE)
    contamination = runner.find(contamination_step(recipe)) if recipe.corpus.decontaminate else None
    templates = Environment(loader=PackageLoader("stella_assets.release"), trim_blocks=True, autoescape=False)  # noqa: S701 (Markdown)
    return templates.get_template("data_card.md.j2").render(
        recipe=recipe,
        corpus=corpus.manifest,
        splits=SPLITS,
        vectors={name: column.dim for name, column in columns.items()},
        funnel_table=_markdown(funnel),
        licence_table=_markdown(pl.read_parquet(corpus.folder / LICENCES_FILE)),
        contamination=contamination and contamination.manifest,
        contamination_table=_markdown(pl.read_parquet(contamination.folder / TASKS_FILE).drop("example"))
        if contamination
        else "",
    )


def _markdown(frame: pl.DataFrame) -> str:
    return tables.markdown_table(frame.columns, [list(row) for row in frame.iter_rows()])
