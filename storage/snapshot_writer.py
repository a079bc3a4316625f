"""Writing snapshots: only what changed is written, and a snapshot appears in one step.

Each unit of rows is a Lance fragment with one file for the texts and one a teacher. A new snapshot takes over the files
of the one before whose rows and teachers did not change, adds what is missing, and commits the list of files. So new
texts cost their own rows, a new teacher its own column, and a removed source nothing but a list of rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from storage.database import open_table, table_uri, to_arrow, to_keys, translate_lance_errors
from storage.locks import file_lock
from storage.snapshot import TABLE, TEXT_COLUMNS, VECTOR, Layout, snapshot_schema, snapshot_tags
from storage.units import write_digest, write_unit
from storage.vectors import UNIT_ROWS
from storage.workspace import Workspace

BLOCK_ROWS = 8192
COMPARED = tuple(name for name in TEXT_COLUMNS if name not in {"id", "text"})
DEAD_SHARE = 0.5
"""A unit with a larger share of deleted rows is not taken over; its living rows are written anew."""


class Texts(Protocol):
    """The texts of a corpus, in the order of their ids."""

    def __len__(self) -> int: ...

    def scan(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of all texts."""

    def take(self, positions: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Some columns of the texts at ascending positions."""


@dataclass(frozen=True)
class TeacherColumn:
    """A teacher in a snapshot.

    Attributes:
        name: The teacher's name.
        dim: Dimensions.
        weight: Its weight in the concatenation.
        fingerprints: Its fingerprint by role: what its vectors depend on.
        fetch: Gives unit vectors `[n, dim]` for n ids and their roles.
    """

    name: str
    dim: int
    weight: float
    fingerprints: Mapping[str, str]
    fetch: Callable[[list[str], list[str]], np.ndarray]


@dataclass(frozen=True)
class Written:
    """What a snapshot cost: rows and columns that were written, of those that it has."""

    version: int
    rows: int
    rows_written: int
    columns_written: tuple[str, ...]


@dataclass
class _Reused:
    """A unit of the snapshot before: its files by column, and its rows that live on."""

    files: list[dict[str, Any]]
    physical_rows: int
    dead: np.ndarray
    live: np.ndarray
    positions: np.ndarray


class SnapshotWriter:
    """Writes the snapshots of one recipe.

    Args:
        workspace: Where the store is.
        recipe: The recipe's name.
        on_wait: Told when another process is writing this table, before waiting for it.
        unit_rows: Rows of a unit.
    """

    def __init__(
        self,
        workspace: Workspace,
        recipe: str,
        on_wait: Callable[[], None] = lambda: None,
        unit_rows: int = UNIT_ROWS,
        on_rows: Callable[[int], None] = lambda _rows: None,
    ) -> None:
        self.name = recipe + TABLE
        self.uri = table_uri(workspace, self.name)
        self._workspace = workspace
        self._recipe = recipe
        self._on_wait = on_wait
        self._unit_rows = unit_rows
        self._on_rows = on_rows

    def write(
        self,
        tag: str,
        texts: Texts,
        teachers: Sequence[TeacherColumn],
        lineage: Mapping[str, Any],
        damaged: AbstractSet[str] = frozenset(),
    ) -> Written:
        """Write the snapshot of these texts and teachers, and tag it. A snapshot that is there is left as it is.

        Args:
            tag: Its name.
            texts: The corpus.
            teachers: The teachers' columns, in the order of the concatenation.
            lineage: What the snapshot is made of, for its metadata.
            damaged: Files that must not be taken over. If there are any, the snapshot itself is made again from what is
                whole of it, and its tag moves.

        Raises:
            StoreError: The store cannot be written, or is damaged.
            DiskSpaceError: The disk is full; the snapshots that were there still are.
        """
        layout = Layout(
            tuple(teacher.name for teacher in teachers),
            tuple(teacher.dim for teacher in teachers),
            tuple(teacher.weight for teacher in teachers),
        )
        schema = snapshot_schema(layout, lineage, {teacher.name: teacher.fingerprints for teacher in teachers})
        with file_lock(self._workspace, self.name, self._on_wait):
            tags = snapshot_tags(self._workspace, self._recipe)
            if tag in tags and not damaged:
                return Written(tags[tag], len(texts), 0, ())
            base = tag if tag in tags else next(reversed(tags), None)
            plan = _Plan(self._open(base), texts, teachers, damaged)
            fragments = [self._complete(unit, plan, schema) for unit in plan.reused]
            fragments += list(self._write_new(plan, schema))
            version = self._commit(schema, fragments, [unit.dead for unit in plan.reused], len(texts))
            self._tag(tag, version)
        written = tuple(t.name for t in teachers if t.name not in plan.kept_teachers)
        return Written(version, len(texts), len(plan.new_positions), written)

    def _open(self, tag: str | None) -> Any:
        return None if tag is None else open_table(self._workspace, self.name, tag)

    def _complete(self, unit: _Reused, plan: _Plan, schema: pa.Schema) -> dict[str, Any]:
        """A unit that is taken over, with a file for each teacher that it lacks."""
        have = {name for file in unit.files for name in file["names"]}
        for teacher in plan.teachers:
            if VECTOR + teacher.name not in have:
                unit.files += self._write_columns(schema, [VECTOR + teacher.name], plan.column_batches(unit, teacher))
        self._on_rows(len(unit.live))
        return _fragment(unit.files, unit.physical_rows, schema)

    def _write_new(self, plan: _Plan, schema: pa.Schema) -> Iterator[dict[str, Any]]:
        """The rows that no unit of the snapshot before has."""
        text_columns = [*TEXT_COLUMNS, "chars"]
        for start in range(0, len(plan.new_positions), self._unit_rows):
            positions = plan.new_positions[start : start + self._unit_rows]
            files = self._write_columns(
                schema, text_columns, plan.text_batches(positions, _select(schema, text_columns))
            )
            whole = _Reused([], len(positions), np.empty(0, np.int64), np.arange(len(positions)), positions)
            for teacher in plan.teachers:
                files += self._write_columns(schema, [VECTOR + teacher.name], plan.column_batches(whole, teacher))
            self._on_rows(len(positions))
            yield _fragment(files, len(positions), schema)

    def _write_columns(
        self, schema: pa.Schema, names: list[str], batches: Iterator[pa.RecordBatch]
    ) -> list[dict[str, Any]]:
        return [{**file, "names": names} for file in write_unit(self.uri, batches, _select(schema, names))["files"]]

    def _commit(self, schema: pa.Schema, fragments: list[dict[str, Any]], dead: list[np.ndarray], rows: int) -> int:
        import lance
        from lance.fragment import FragmentMetadata

        metadata = [FragmentMetadata.from_json(json.dumps({**f, "id": i})) for i, f in enumerate(fragments)]
        with translate_lance_errors(self.uri):
            dataset = lance.LanceDataset.commit(self.uri, lance.LanceOperation.Overwrite(schema, metadata))
            if any(len(offsets) for offsets in dead):
                dataset = self._delete(dataset, dead)
            found = dataset.count_rows()
        assert found == rows, f"{self.uri}: {found} rows for {rows} texts"
        return int(dataset.version)

    def _delete(self, dataset: Any, dead: list[np.ndarray]) -> Any:
        """Take the rows out that are no part of the snapshot; what is left untagged by a kill here is never read."""
        import lance

        updated = []
        for fragment, offsets in zip(dataset.get_fragments(), dead, strict=False):
            if len(offsets):
                metadata = fragment.delete_rows(offsets.tolist())
                updated.append(metadata)
        dataset = lance.LanceDataset.commit(
            self.uri,
            lance.LanceOperation.Delete(updated, [], "stella: not in this snapshot"),
            read_version=dataset.version,
        )
        sizes = {row["path"]: row["size_bytes"] for row in dataset.all_files().read_all().to_pylist()}
        for fragment in dataset.get_fragments():
            if path := fragment.deletion_file():
                write_digest(self.uri, path, sizes[path], fragment.physical_rows)
        return dataset

    def _tag(self, tag: str, version: int) -> None:
        dataset = open_table(self._workspace, self.name)
        with translate_lance_errors(self.uri):
            if tag in dataset.tags.list():
                dataset.tags.update(tag, version)
            else:
                dataset.tags.create(tag, version)


class _Plan:
    """What of the snapshot before can be taken over, and what must be written.

    In memory are the keys and 64-bit hashes of the rows, 24 bytes each, of both snapshots.
    """

    def __init__(self, base: Any, texts: Texts, teachers: Sequence[TeacherColumn], damaged: AbstractSet[str]) -> None:
        self.texts = texts
        self.teachers = teachers
        self._keys, hashes = _index(texts.scan(["id", *COMPARED]))
        covered = np.zeros(len(self._keys), dtype=bool)
        self.kept_teachers = {t.name for t in teachers if _same_column(base, t)} if base is not None else set()
        self.reused = list(self._take_over(base, hashes, covered, damaged)) if base is not None else []
        self.new_positions = np.flatnonzero(~covered)

    def _take_over(
        self, base: Any, hashes: np.ndarray, covered: np.ndarray, damaged: AbstractSet[str]
    ) -> Iterator[_Reused]:
        names_by_id = {field.id(): field.name() for field in base.lance_schema.fields()}
        wanted = {*TEXT_COLUMNS, "chars", *(VECTOR + name for name in self.kept_teachers)}
        for fragment in base.get_fragments():
            about = fragment.metadata.to_json()
            files = [{**file, "names": [names_by_id[i] for i in file["fields"]]} for file in about["files"]]
            files = [f for f in files if set(f["names"]) <= wanted and f"data/{f['path']}" not in damaged]
            deletion = fragment.deletion_file()
            if not any("id" in file["names"] for file in files) or deletion in damaged:
                continue  # its rows cannot be told; they count as new
            offsets, positions, same = self._match(fragment, base.uri, hashes)
            same &= ~covered[positions]
            if same.sum() < (1 - DEAD_SHARE) * about["physical_rows"]:
                continue
            covered[positions[same]] = True
            dead = np.setdiff1d(np.arange(about["physical_rows"]), offsets[same])
            yield _Reused(files, about["physical_rows"], dead, offsets[same], positions[same])

    def _match(self, fragment: Any, uri: str, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each living row of a unit: its offset, its position in the corpus, and whether it is unchanged there."""
        with translate_lance_errors(uri):
            rows = fragment.scanner(columns=["id", *COMPARED], with_row_address=True).to_table()
        keys, found = _index(rows.drop_columns(["_rowaddr"]).to_batches())
        offsets = rows.column("_rowaddr").to_numpy().astype(np.int64) & 0xFFFFFFFF
        at = np.searchsorted(self._keys, keys).clip(max=max(0, len(self._keys) - 1))
        return offsets, at, (self._keys[at] == keys) & (hashes[at] == found)

    def text_batches(self, positions: np.ndarray, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The text columns of the texts at some positions."""
        import pyarrow.compute as pc

        for start in range(0, len(positions), BLOCK_ROWS):
            block = self.texts.take(positions[start : start + BLOCK_ROWS], TEXT_COLUMNS)
            block = block.append_column("chars", pc.utf8_length(block.column("text")))
            yield from block.cast(schema).combine_chunks().to_batches()

    def column_batches(self, unit: _Reused, teacher: TeacherColumn) -> Iterator[pa.RecordBatch]:
        """A teacher's column of a unit; deleted rows have zeros, which nothing reads."""
        schema = pa.schema([(VECTOR + teacher.name, pa.list_(pa.float16(), teacher.dim))])
        for start in range(0, unit.physical_rows, BLOCK_ROWS):
            end = min(start + BLOCK_ROWS, unit.physical_rows)
            here = slice(*np.searchsorted(unit.live, [start, end]))
            rows = self.texts.take(unit.positions[here], ["id", "role"])
            block = np.zeros((end - start, teacher.dim), dtype=np.float16)
            fetched = teacher.fetch(rows.column("id").to_pylist(), rows.column("role").to_pylist())
            block[unit.live[here] - start] = fetched
            yield pa.RecordBatch.from_arrays([to_arrow(block)], schema=schema)


def _index(batches: Iterator[pa.RecordBatch] | list[pa.RecordBatch]) -> tuple[np.ndarray, np.ndarray]:
    """Keys of rows, and hashes of what else is said of a text; hashes are comparable within a process."""
    import polars as pl

    keys, hashes = [to_keys([])], [np.empty(0, dtype=np.uint64)]
    for batch in batches:
        keys.append(to_keys(batch.column("id")))
        said = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch]).select(list(COMPARED))))
        hashes.append(said.hash_rows(seed=0).to_numpy())
    return np.concatenate(keys), np.concatenate(hashes)


def _same_column(base: Any, teacher: TeacherColumn) -> bool:
    index = base.schema.get_field_index(VECTOR + teacher.name)
    if index < 0:
        return False
    field = base.schema.field(index)
    held = json.loads((field.metadata or {}).get(b"stella.fingerprints", b"null"))
    return bool(field.type.list_size == teacher.dim and held == dict(teacher.fingerprints))


def _select(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name).remove_metadata() for name in names])


def _fragment(files: list[dict[str, Any]], rows: int, schema: pa.Schema) -> dict[str, Any]:
    """Metadata of a fragment whose files hold the columns `names`, numbered as the schema has them."""
    numbered = [
        {
            **{k: v for k, v in file.items() if k != "names"},
            "fields": [schema.get_field_index(n) for n in file["names"]],
        }
        for file in files
    ]
    return {"files": numbered, "physical_rows": rows, "deletion_file": None, "row_id_meta": None, "overlays": []}
