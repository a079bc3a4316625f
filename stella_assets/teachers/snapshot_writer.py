"""Writing snapshots: only what changed is written, and a snapshot appears in one step.

Each unit of rows is a Lance fragment with one file for the texts and one per teacher. A new snapshot reuses the files
of the last one whose rows and teachers did not change, adds what is missing, and commits the list of files. So new
texts cost their own rows, a new teacher its own column, and a removed source only a list of rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from stella_assets.storage.database import open_table, set_tag, table_uri
from stella_assets.storage.homes import note_home
from stella_assets.storage.integrity import restore_readable
from stella_assets.storage.lance_errors import translate_lance_errors
from stella_assets.storage.locks import file_lock
from stella_assets.storage.seals import seal_version
from stella_assets.storage.table_files import wrong_files
from stella_assets.storage.units import UNIT_ROWS, write_digest, write_unit
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.snapshot import TEXT_COLUMNS, VECTOR, Layout, snapshot_schema, snapshot_tags
from stella_assets.teachers.snapshot_plan import ReusedUnit, SnapshotPlan, TeacherColumn, Texts
from stella_assets.teachers.tables import SNAPSHOT


@dataclass(frozen=True)
class Written:
    """What was written of a snapshot: rows and columns, of those that it has.

    Attributes:
        version: Of the table.
        rows: Rows of the snapshot.
        rows_written: Rows that no reused unit had.
        columns_written: Teachers whose columns were written for reused units, too.
    """

    version: int
    rows: int
    rows_written: int
    columns_written: tuple[str, ...]


class SnapshotWriter:
    """Writes the snapshots of one recipe.

    Args:
        workspace: Where the store is.
        recipe: The recipe's name.
        on_wait: Called when another process is writing this table, before waiting for it.
        unit_rows: Rows of a unit.
        on_rows: Called with a number of rows as they are written or reused.
    """

    def __init__(
        self,
        workspace: Workspace,
        recipe: str,
        on_wait: Callable[[], None] = lambda: None,
        unit_rows: int = UNIT_ROWS,
        on_rows: Callable[[int], None] = lambda _rows: None,
    ) -> None:
        self.name = recipe + SNAPSHOT
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
        """Write the snapshot of these texts and teachers, and tag it. A snapshot that exists is left as it is.

        Args:
            tag: Its name.
            texts: The corpus.
            teachers: The teachers' columns, in the order of the concatenation.
            lineage: What the snapshot is made of, for its metadata.
            damaged: Files that must not be reused. If there are any, the snapshot itself is written again from what is
                whole of it, and its tag moves.

        Returns:
            What was written; no rows and columns where the snapshot was there.

        Raises:
            VectorError: A text has no vector of a teacher.
            StoreError: The store cannot be written, or is damaged.
            DiskSpaceError: The disk is full; earlier snapshots stay as they are.
        """
        layout = Layout(
            tuple(teacher.name for teacher in teachers),
            tuple(teacher.dim for teacher in teachers),
            tuple(teacher.weight for teacher in teachers),
            {teacher.name: teacher.centre for teacher in teachers if teacher.centre},
        )
        schema = snapshot_schema(layout, lineage, {teacher.name: teacher.fingerprints for teacher in teachers})
        note_home(self._workspace, self.name)
        with file_lock(self._workspace, self.name, self._on_wait):
            restore_readable(self._workspace, self.name)
            tags = snapshot_tags(self._workspace, self._recipe)
            # The newest snapshot shares most with a new one. A damaged snapshot is rebuilt from its own whole files.
            base = tag if tag in tags else next(reversed(tags), None)
            damaged = {*damaged, *(wrong_files(self._workspace, self.name, base) if base else ())}
            if tag in tags and not damaged:
                return Written(tags[tag], len(texts), 0, ())
            plan = SnapshotPlan(self._open(base, damaged), texts, teachers, damaged)
            fragments = [self._complete(unit, plan, schema) for unit in plan.reused]
            fragments += list(self._write_new(plan, schema))
            # All files lie in the table's folder before the commit; killed before it, they are garbage that nothing
            # names.
            version = self._commit(schema, fragments, [unit.dead for unit in plan.reused], len(texts))
            # Last: readers find snapshots by tag only, so an unfinished one cannot be read.
            set_tag(self._workspace, self.name, tag, version)
            seal_version(self.uri, tag)
        written = tuple(t.name for t in teachers if t.name not in plan.kept_teachers)
        return Written(version, len(texts), len(plan.new_positions), written)

    def _open(self, tag: str | None, damaged: AbstractSet[str]) -> Any:
        """The version to reuse files of; None where there is none, or where nothing tells which files it has."""
        # Data and deletions are damaged one by one; a manifest or a tag puts the whole version in doubt.
        if tag is None or any(not place.startswith(("data/", "_deletions/")) for place in damaged):
            return None
        return open_table(self._workspace, self.name, tag)

    def _complete(self, unit: ReusedUnit, plan: SnapshotPlan, schema: pa.Schema) -> dict[str, Any]:
        """A reused unit, with a file for each teacher that it lacks."""
        have = {name for file in unit.files for name in file["names"]}
        for teacher in plan.teachers:
            if VECTOR + teacher.name not in have:
                unit.files += self._write_columns(schema, [VECTOR + teacher.name], plan.column_batches(unit, teacher))
        self._on_rows(len(unit.live))
        return _fragment(unit.files, unit.physical_rows, schema)

    def _write_new(self, plan: SnapshotPlan, schema: pa.Schema) -> Iterator[dict[str, Any]]:
        """The rows that no reused unit has."""
        text_columns = [*TEXT_COLUMNS, "chars"]
        for start in range(0, len(plan.new_positions), self._unit_rows):
            positions = plan.new_positions[start : start + self._unit_rows]
            files = self._write_columns(
                schema, text_columns, plan.text_batches(positions, _select(schema, text_columns))
            )
            # New rows in the form of a unit without deleted rows, so that one function makes the columns of both.
            whole = ReusedUnit([], len(positions), np.empty(0, np.int64), np.arange(len(positions)), positions)
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

        # Fragments are numbered anew, in the order in which `dead` lists their deleted rows.
        metadata = [FragmentMetadata.from_json(json.dumps({**f, "id": i})) for i, f in enumerate(fragments)]
        with translate_lance_errors(self.uri):
            # Overwrite replaces the list of fragments, not the files: earlier versions keep theirs.
            dataset = lance.LanceDataset.commit(self.uri, lance.LanceOperation.Overwrite(schema, metadata))
            if any(len(offsets) for offsets in dead):
                dataset = self._delete(dataset, dead)
            found = dataset.count_rows()
        # Before the tag: a version with lost or doubled rows is never read.
        assert found == rows, f"{self.uri}: {found} rows for {rows} texts"
        return int(dataset.version)

    def _delete(self, dataset: Any, dead: list[np.ndarray]) -> Any:
        """Delete rows that are not part of the snapshot. If killed here, the version has no tag and is never read."""
        import lance

        updated = []
        # Reused units come first in the list; new ones, which follow, have no deleted rows.
        for fragment, offsets in zip(dataset.get_fragments(), dead, strict=False):
            if len(offsets):
                metadata = fragment.delete_rows(offsets.tolist())
                updated.append(metadata)
        dataset = lance.LanceDataset.commit(
            self.uri,
            lance.LanceOperation.Delete(updated, [], "stella: not in this snapshot"),
            read_version=dataset.version,
        )
        # Deletion files are written by Lance itself; they get a digest here, as data files do in `write_unit`.
        sizes = {row["path"]: row["size_bytes"] for row in dataset.all_files().read_all().to_pylist()}
        for fragment in dataset.get_fragments():
            if path := fragment.deletion_file():
                write_digest(self.uri, path, sizes[path], fragment.physical_rows)
        return dataset


def _select(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name).remove_metadata() for name in names])


def _fragment(files: list[dict[str, Any]], rows: int, schema: pa.Schema) -> dict[str, Any]:
    """Metadata of a fragment whose files hold the columns `names`, numbered as the schema has them."""
    # Overwrite numbers fields by their place in the schema; a fixed-size list counts as one field.
    numbered = [
        {
            **{k: v for k, v in file.items() if k != "names"},
            "fields": [schema.get_field_index(n) for n in file["names"]],
        }
        for file in files
    ]
    return {"files": numbered, "physical_rows": rows, "deletion_file": None, "row_id_meta": None, "overlays": []}
