"""Vectors out of the store: Parquet, npy with a sidecar, safetensors. Vectors into it: raw memmaps with text lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stella_assets.storage.codecs import block_rows, vectors_to_arrow
from stella_assets.storage.errors import TransferError
from stella_assets.storage.files import new_folder
from stella_assets.teachers.snapshot import TEXT_COLUMNS, VECTOR, Snapshot

Format = Literal["parquet", "npy", "safetensors"]
FORMATS: tuple[Format, ...] = get_args(Format)
# Entries in memory at a time: 64 MiB of float16.
BLOCK_ENTRIES = 2**25
SHARD_ENTRIES = 2**29
"""Entries of one safetensors file, 1 GiB of float16: a file's tensors are in memory when it is written."""


def export_snapshot(
    snapshot: Snapshot,
    folder: Path,
    form: Format,
    teachers: Sequence[str] | None = None,
    on_rows: Callable[[int], None] = lambda _rows: None,
) -> list[Path]:
    """Write a snapshot's texts and vectors, in the order of ids, in blocks.

    `vectors.json` names the layout: teachers, dims, weights, means and lineage. Parquet has one column per teacher;
    npy and safetensors have the teachers side by side, `[rows, sum of dims]` float16, and the texts in `texts.parquet`.

    Args:
        snapshot: What to export.
        folder: Where to; it must be empty or not exist.
        form: `parquet`, `npy` or `safetensors`.
        teachers: Only these.
        on_rows: Told of rows as they are written.

    Returns:
        The files.

    Raises:
        TransferError: The folder has files, no teacher is named, or the snapshot lacks one.

    Example:
        >>> export_snapshot(open_snapshot(workspace, "demo"), Path("export"), "npy")
        [PosixPath('export/texts.parquet'), PosixPath('export/vectors.json'), PosixPath('export/vectors.npy')]
    """
    names = list(snapshot.layout.teachers if teachers is None else teachers)
    if not names:
        raise TransferError("no teacher is named, so there would be no vectors to export. Name at least one.")
    if unknown := [name for name in names if name not in snapshot.layout.teachers]:
        raise TransferError(f"teacher {unknown[0]!r}: the snapshot has {', '.join(snapshot.layout.teachers)}.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise TransferError(f"{folder}: is not an empty folder. Name a new one.", folder)
    with new_folder(folder) as draft:
        _write_export(snapshot, draft, form, names, on_rows)
    return sorted(folder.iterdir())


def _write_export(
    snapshot: Snapshot, draft: Path, form: Format, names: list[str], on_rows: Callable[[int], None]
) -> None:
    dims = [snapshot.layout.dim_of(name) for name in names]
    blocks = _blocks(snapshot, names, sum(dims), on_rows)
    match form:
        case "parquet":
            _write_parquet(draft / "vectors.parquet", names, dims, blocks)
        case "npy":
            _write_npy(draft, len(snapshot), sum(dims), blocks)
        case "safetensors":
            _write_safetensors(draft, len(snapshot), sum(dims), blocks)
    layout = snapshot.layout
    means = [None if (mean := layout.mean_of(name)) is None else mean.tolist() for name in names]
    weights = [layout.weight_of(name) for name in names]
    description = {
        "rows": len(snapshot),
        "dtype": "float16",
        "unit_norm": "each teacher's part",
        "layout": {"teachers": names, "dims": dims, "weights": weights, "means": means},
        "fingerprints": {name: snapshot.fingerprints[name] for name in names},
        "lineage": snapshot.lineage,
    }
    # Unit vectors, weights and means are kept apart, so that a reader can join them differently.
    (draft / "vectors.json").write_text(json.dumps(description, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _blocks(
    snapshot: Snapshot, teachers: list[str], dim: int, on_rows: Callable[[int], None]
) -> Iterator[tuple[dict[str, list[Any]], np.ndarray]]:
    size = block_rows(dim, BLOCK_ENTRIES)
    for start in range(0, len(snapshot), size):
        rows = np.arange(start, min(start + size, len(snapshot)))
        yield snapshot.read(rows, TEXT_COLUMNS, teachers)
        on_rows(len(rows))


def _texts(columns: dict[str, list[Any]]) -> pa.Table:
    return pa.table({name: pa.array(columns[name], pa.string()) for name in TEXT_COLUMNS})


def _write_parquet(
    path: Path, names: list[str], dims: list[int], blocks: Iterator[tuple[dict[str, list[Any]], np.ndarray]]
) -> None:
    fields = [(VECTOR + name, pa.list_(pa.float16(), dim)) for name, dim in zip(names, dims, strict=True)]
    schema = pa.schema([*((name, pa.string()) for name in TEXT_COLUMNS), *fields])
    ends = np.cumsum([0, *dims])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for columns, block in blocks:
            parts = [vectors_to_arrow(block[:, start:end]) for start, end in pairwise(ends)]
            arrays = [pa.array(columns[name], pa.string()) for name in TEXT_COLUMNS]
            writer.write_table(pa.Table.from_arrays([*arrays, *parts], schema=schema))


def _write_npy(folder: Path, rows: int, dim: int, blocks: Iterator[tuple[dict[str, list[Any]], np.ndarray]]) -> None:
    # Written block by block through a map: the array may be larger than memory.
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", mode="w+", dtype=np.float16, shape=(rows, dim))
    done = 0
    schema = pa.schema([(name, pa.string()) for name in TEXT_COLUMNS])
    with pq.ParquetWriter(folder / "texts.parquet", schema, compression="zstd") as writer:
        for columns, block in blocks:
            vectors[done : done + len(block)] = block
            writer.write_table(_texts(columns))
            done += len(block)
    vectors.flush()


def _write_safetensors(
    folder: Path, rows: int, dim: int, blocks: Iterator[tuple[dict[str, list[Any]], np.ndarray]]
) -> None:
    from safetensors.numpy import save_file

    of_file = max(1, SHARD_ENTRIES // dim)
    # Rounded up. The number of files is part of each name, so it must be known before the first one is written.
    count = -(-rows // of_file)
    schema = pa.schema([(name, pa.string()) for name in TEXT_COLUMNS])
    shard, filled, number = np.empty((min(of_file, rows), dim), np.float16), 0, 1
    with pq.ParquetWriter(folder / "texts.parquet", schema, compression="zstd") as writer:
        for columns, block in blocks:
            writer.write_table(_texts(columns))
            used = 0
            while used < len(block):
                # A block may end one shard and begin the next; a shard takes what fits.
                taken = block[used : used + len(shard) - filled]
                shard[filled : filled + len(taken)] = taken
                filled, used = filled + len(taken), used + len(taken)
                if filled == len(shard):
                    save_file({"vectors": shard}, folder / f"vectors-{number:05d}-of-{count:05d}.safetensors")
                    number, filled = number + 1, 0
                    # The last shard is shorter; after it there is an empty one, which is never written.
                    shard = np.empty((min(of_file, max(0, rows - (number - 1) * of_file)), dim), np.float16)


@dataclass(frozen=True)
class Memmap:
    """Vectors in a file without a header, one row per line of a text file, as RAG-Retrieval and others write them.

    Attributes:
        vectors: `[rows, dim]`, row by row, without a header.
        texts: Plain text, one text per line; or JSON Lines with a key `text`.
        dim: Dimensions.
        dtype: `float32` or `float16`, in this machine's byte order.

    Example:
        >>> Memmap(Path("vectors.f32"), Path("texts.txt"), dim=1024, dtype="float32").open()[0].shape
        (5000, 1024)
    """

    vectors: Path
    texts: Path
    dim: int
    dtype: Literal["float32", "float16"]

    def open(self) -> tuple[np.ndarray, list[str]]:
        """The vectors, mapped and not read, and the texts.

        Raises:
            TransferError: A file is missing, or their sizes do not fit together.
        """
        for path in (self.vectors, self.texts):
            if not path.is_file():
                raise TransferError(f"{path}: no such file.")
        texts = list(self.read_texts())
        width = np.dtype(self.dtype).itemsize
        size, row = self.vectors.stat().st_size, self.dim * width
        if size != len(texts) * row:
            # The usual mistake is a wrong --dim or --dtype, and the size tells which one would fit.
            fits = size / len(texts) / width if texts else 0
            told = f"; {fits:,.0f} dims of {self.dtype} would fit" if fits and fits == int(fits) else ""
            raise TransferError(
                f"{self.vectors}: {size:,} bytes are not {len(texts):,} rows of {self.dim} dims in {self.dtype} "
                f"({len(texts) * row:,} bytes), as {self.texts} has {len(texts):,} lines{told}. Correct --dim, --dtype "
                "or the text file."
            )
        if not texts:
            raise TransferError(f"{self.texts}: holds no texts.")
        return np.memmap(self.vectors, dtype=self.dtype, mode="r", shape=(len(texts), self.dim)), texts

    def read_texts(self) -> Iterator[str]:
        """The texts, line by line.

        Raises:
            TransferError: A line is not UTF-8, or not JSON with a key `text`.
        """
        as_json = self.texts.suffix in {".jsonl", ".json"}
        with self.texts.open("rb") as file:
            for number, raw in enumerate(file, 1):
                try:
                    # Windows begins files with a mark, which is no part of the first text.
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    raise TransferError(f"{self.texts}: line {number} is not UTF-8. Save the file as UTF-8.") from None
                if not as_json:
                    # Only the line's end: blanks belong to the text, and adoption counts texts that are not in normal
                    # form.
                    yield line.rstrip("\r\n")
                    continue
                try:
                    yield str(json.loads(line)["text"])
                except (json.JSONDecodeError, KeyError, TypeError):
                    raise TransferError(
                        f"{self.texts}: line {number} is not a JSON object with a key `text`."
                    ) from None
