"""What of a recipe's last snapshot a new one can reuse, and what must be written.

A snapshot consists of units of rows, each with one file for the texts and one per teacher.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from stella_assets.storage.codecs import vectors_to_arrow
from stella_assets.storage.keys import find_sorted, to_keys
from stella_assets.storage.lance_errors import translate_lance_errors
from stella_assets.storage.polars import pl
from stella_assets.storage.units import data_file
from stella_assets.teachers.joining import Centre
from stella_assets.teachers.refusal import Texts
from stella_assets.teachers.snapshot import TEXT_COLUMNS, VECTOR

if TYPE_CHECKING:
    from stella_assets.teachers.teacher_vectors import TeacherVectors
    from stella_assets.teachers.vectors import VectorsByRole

# Rows of one record batch: 16 MiB of a teacher with 1024 dimensions in float16.
BLOCK_ROWS = 8192
# An id is the hash of its text, so equal ids have equal texts, and texts need not be read.
COMPARED = tuple(name for name in TEXT_COLUMNS if name not in {"id", "text"})
MAX_DELETED = 0.5
"""A unit with a larger share of deleted rows is not reused; its other rows are written again."""


@dataclass(frozen=True)
class TeacherColumn:
    """A teacher in a snapshot.

    Attributes:
        name: The teacher's name.
        dim: Dimensions.
        weight: Its weight in the concatenation.
        fingerprints: Its fingerprint by role: what its vectors depend on.
        fetch: Gives unit vectors `[n, dim]` for n ids and their roles.
        centre: Where its vectors lie; None where that was not measured, and nothing is taken away.
    """

    name: str
    dim: int
    weight: float
    fingerprints: Mapping[str, str]
    fetch: Callable[[list[str], list[str]], np.ndarray]
    centre: Centre | None = None

    @classmethod
    def of(
        cls, name: str, weight: float, vectors: TeacherVectors | VectorsByRole, centre: Centre | None
    ) -> TeacherColumn:
        """A teacher's column, read from its vectors."""
        return cls(name, vectors.dim, weight, vectors.fingerprints, vectors.fetch, centre)


@dataclass
class ReusedUnit:
    """A unit of the last snapshot.

    Attributes:
        files: Lance's metadata of its files, with the names of their columns.
        physical_rows: Its rows, deleted ones included.
        dead: Offsets of the rows that are not part of the new snapshot.
        live: Offsets of the others.
        positions: Of the others, their positions in the corpus.
    """

    files: list[dict[str, Any]]
    physical_rows: int
    dead: np.ndarray
    live: np.ndarray
    positions: np.ndarray


class SnapshotPlan:
    """Which units of the last snapshot are reused, and which rows must be written.

    In memory are the keys and 64-bit hashes of the rows, 24 bytes each, of both snapshots.

    Args:
        base: Lance's dataset of the last snapshot; None for a first one.
        texts: The corpus.
        teachers: The columns that are wanted.
        damaged: Files that must not be reused.

    Attributes:
        kept_teachers: Names of teachers whose column in the base has the same fingerprints.
        reused: Units that go into the new snapshot; `files` may lack teachers that are to be written.
        new_positions: Ascending positions in the corpus of the texts that no reused unit has.

    Raises:
        StoreError: The base cannot be read.
    """

    def __init__(self, base: Any, texts: Texts, teachers: Sequence[TeacherColumn], damaged: AbstractSet[str]) -> None:
        self.texts = texts
        self.teachers = teachers
        self._keys, hashes = _index(texts.scan(["id", *COMPARED]))
        # `_find_reusable` marks what it takes: a text is in one unit only, also where old units overlap.
        covered = np.zeros(len(self._keys), dtype=bool)
        self.kept_teachers = {t.name for t in teachers if _same_column(base, t)} if base is not None else set()
        # Of an empty corpus no row can be one of the base's.
        known = base is not None and len(self._keys) > 0
        self.reused = list(self._find_reusable(base, hashes, covered, damaged)) if known else []
        self.new_positions = np.flatnonzero(~covered)

    def _find_reusable(
        self, base: Any, hashes: np.ndarray, covered: np.ndarray, damaged: AbstractSet[str]
    ) -> Iterator[ReusedUnit]:
        # Lance's metadata name columns by field id, which differ between versions of a table.
        names_by_id = {field.id(): field.name() for field in base.lance_schema.fields()}
        wanted = {*TEXT_COLUMNS, "chars", *(VECTOR + name for name in self.kept_teachers)}
        for fragment in base.get_fragments():
            about = fragment.metadata.to_json()
            files = [{**file, "names": [names_by_id[i] for i in file["fields"]]} for file in about["files"]]
            # A file with a column that is not wanted is left out: of a removed teacher, or of one with other
            # fingerprints.
            files = [f for f in files if set(f["names"]) <= wanted and data_file(f["path"]) not in damaged]
            deletion = fragment.deletion_file()
            if not any("id" in file["names"] for file in files) or deletion in damaged:
                continue  # nothing tells which rows it has; they count as new
            offsets, positions, same = self._match(fragment, base.uri, hashes)
            same &= ~covered[positions]
            # Deleted rows still take space and are read past; rewriting bounds them.
            if same.sum() < (1 - MAX_DELETED) * about["physical_rows"]:
                continue
            covered[positions[same]] = True
            # Also rows that the base had deleted: the new version begins without its deletion file.
            dead = np.setdiff1d(np.arange(about["physical_rows"]), offsets[same])
            yield ReusedUnit(files, about["physical_rows"], dead, offsets[same], positions[same])

    def _match(self, fragment: Any, uri: str, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each undeleted row of a unit: its offset, its position in the corpus, and whether it is unchanged."""
        with translate_lance_errors(uri):
            rows = fragment.scanner(columns=["id", *COMPARED], with_row_address=True).to_table()
        keys, found = _index(rows.drop_columns(["_rowaddr"]).to_batches())
        # A row address is fragment id * 2^32 + offset in the fragment.
        offsets = rows.column("_rowaddr").to_numpy().astype(np.int64) & 0xFFFFFFFF
        at, there = find_sorted(self._keys, keys)
        return offsets, at, there & (hashes[at] == found)

    def text_batches(self, positions: np.ndarray, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The text columns of the texts at some positions."""
        import pyarrow.compute as pc

        for start in range(0, len(positions), BLOCK_ROWS):
            block = self.texts.take(positions[start : start + BLOCK_ROWS], TEXT_COLUMNS)
            block = block.append_column("chars", pc.utf8_length(block.column("text")))
            yield from block.cast(schema).combine_chunks().to_batches()

    def column_batches(self, unit: ReusedUnit, teacher: TeacherColumn) -> Iterator[pa.RecordBatch]:
        """A teacher's column of a unit; deleted rows have zeros, which nothing reads."""
        schema = pa.schema([(VECTOR + teacher.name, pa.list_(pa.float16(), teacher.dim))])
        for start in range(0, unit.physical_rows, BLOCK_ROWS):
            end = min(start + BLOCK_ROWS, unit.physical_rows)
            # `live` is ascending, and so are `positions`: units are written in the order of ids.
            here = slice(*np.searchsorted(unit.live, [start, end]))
            rows = self.texts.take(unit.positions[here], ["id", "role"])
            # Files of one fragment must have equally many rows, so deleted ones need a value.
            block = np.zeros((end - start, teacher.dim), dtype=np.float16)
            fetched = teacher.fetch(rows.column("id").to_pylist(), rows.column("role").to_pylist())
            block[unit.live[here] - start] = fetched
            yield pa.RecordBatch.from_arrays([vectors_to_arrow(block)], schema=schema)


def _index(batches: Iterator[pa.RecordBatch] | list[pa.RecordBatch]) -> tuple[np.ndarray, np.ndarray]:
    """Keys of rows, and hashes of the other columns of a text; hashes are comparable within a process."""
    keys, hashes = [to_keys([])], [np.empty(0, dtype=np.uint64)]
    for batch in batches:
        keys.append(to_keys(batch.column("id")))
        others = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch]).select(list(COMPARED))))
        hashes.append(others.hash_rows(seed=0).to_numpy())
    return np.concatenate(keys), np.concatenate(hashes)


def _same_column(base: Any, teacher: TeacherColumn) -> bool:
    index = base.schema.get_field_index(VECTOR + teacher.name)
    if index < 0:
        return False
    field = base.schema.field(index)
    held = json.loads((field.metadata or {}).get(b"stella.fingerprints", b"null"))
    # Weights and centres are not compared: columns hold unit vectors as they were made, and the layout has the rest.
    return bool(field.type.list_size == teacher.dim and held == dict(teacher.fingerprints))
