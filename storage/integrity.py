"""Is the store whole? Files against the digests of when they were written, and rows against what rows must be."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from storage.database import DamageError, open_table, table_uri, to_keys, to_numpy
from storage.locks import file_lock
from storage.snapshot import TABLE
from storage.units import hash_file, read_digest, session
from storage.vectors import PREFIX, drop_units
from storage.workspace import Workspace

STORED_NORM_TOLERANCE = 2e-3
"""Of unit vectors kept as float16."""
BLOCK_ENTRIES = 2**23
VERSIONS = "_versions"


@dataclass(frozen=True)
class Damage:
    """Something that is not as it should be.

    Attributes:
        table: The table.
        place: The file, or what part of the table.
        what: What is wrong, in words.
        rows: Rows that are lost or in doubt.
        tags: Snapshots that it is part of.
    """

    table: str
    place: str
    what: str
    rows: int
    tags: tuple[str, ...] = ()


@dataclass
class TableReport:
    """What was looked at in a table, and what was found."""

    table: str
    rows: int = 0
    files: int = 0
    bytes: int = 0
    versions: int = 0
    damages: list[Damage] = field(default_factory=list)


@dataclass
class _File:
    rows: int
    tags: set[str]


def verify_table(workspace: Workspace, name: str, on_bytes: Callable[[int], None] = lambda _bytes: None) -> TableReport:
    """Verify the files and the rows of a table: of its newest version, and of every one that a tag names.

    Found are files that are missing, truncated, changed or without a digest, rows with NaN or not of unit norm, and ids
    that are there twice.
    """
    report = TableReport(name)
    versions = list(_versions(workspace, name, report))
    report.versions = len(versions)
    files = _referenced(versions)
    if not versions:
        return report
    uri = versions[0][1].uri
    sizes = {row["path"]: row["size_bytes"] for row in versions[0][1].all_files().read_all().to_pylist()}
    for path, file in sorted(files.items()):
        wrong = _verify_file(uri, path, file, sizes.get(path))
        if wrong:
            report.damages.append(Damage(name, path, wrong, file.rows, tuple(sorted(file.tags))))
        on_bytes(sizes.get(path, 0))
    report.files, report.bytes = len(files), sum(sizes.get(path, 0) for path in files)
    damaged = {damage.place for damage in report.damages}
    seen: set[str] = set()
    for tag, dataset in versions:
        _verify_rows(report, tag, dataset, damaged, seen)
    return report


def table_bytes(workspace: Workspace, name: str) -> int:
    """Bytes of the files that `verify_table` reads; 0 for a table that cannot be opened."""
    try:
        dataset = open_table(workspace, name)
    except DamageError:
        return 0
    return 0 if dataset is None else sum(dataset.all_files().read_all().column("size_bytes").to_pylist())


def _versions(workspace: Workspace, name: str, report: TableReport) -> Iterator[tuple[str, Any]]:
    """The versions that matter, oldest first, with their tags; those that do not open are damages."""
    try:
        newest = open_table(workspace, name)
    except DamageError as error:
        report.damages.append(Damage(name, VERSIONS, f"the table cannot be opened: {error}", 0))
        return
    if newest is None:
        return
    tags = {tag: int(entry["version"]) for tag, entry in newest.tags.list().items()}
    for tag, _ in sorted(tags.items(), key=lambda item: item[1]):
        try:
            yield tag, open_table(workspace, name, tag)
        except DamageError as error:
            report.damages.append(Damage(name, VERSIONS, f"tag {tag} cannot be opened: {error}", 0, (tag,)))
    if newest.version not in tags.values():
        yield "", newest


def _referenced(versions: list[tuple[str, Any]]) -> dict[str, _File]:
    files: dict[str, _File] = {}
    for tag, dataset in versions:
        for fragment in dataset.get_fragments():
            paths = [f"data/{data.path}" for data in fragment.data_files()]
            if deletion := fragment.deletion_file():
                paths.append(deletion)
            for path in paths:
                files.setdefault(path, _File(fragment.physical_rows, set())).tags.add(tag)
    for file in files.values():
        file.tags.discard("")
    return files


def _verify_file(uri: str, path: str, file: _File, size: int | None) -> str:
    """What is wrong with a file, in words, or nothing."""
    if size is None:
        return "is missing"
    digest = read_digest(uri, path)
    if digest is None:
        return "has no digest, so nothing tells whether it is as it was written"
    if size != digest.bytes:
        return f"is {'truncated' if size < digest.bytes else 'too long'}: {size:,} of {digest.bytes:,} bytes"
    if file.rows != digest.rows:
        return f"holds {digest.rows:,} rows, and the table says {file.rows:,}"
    if hash_file(uri, path, size) != digest.sha256:
        return "was changed: its bytes are not those that were written"
    return ""


def _verify_rows(report: TableReport, tag: str, dataset: Any, damaged: set[str], seen: set[str]) -> None:
    """Ids once each, vectors finite and of unit norm, in the units whose files are whole; a file's vectors once."""
    keys, tags = [to_keys([])], (tag,) if tag else ()
    names_by_id = {column.id(): column.name() for column in dataset.lance_schema.fields()}
    for fragment in dataset.get_fragments():
        paths = [f"data/{data.path}" for data in fragment.data_files()]
        if damaged & {*paths, fragment.deletion_file() or ""}:
            continue
        keys += [to_keys(batch.column(0)) for batch in fragment.to_batches(columns=["id"])]
        for path, data in zip(paths, fragment.data_files(), strict=True):
            vectors = [names_by_id[i] for i in data.fields if names_by_id[i].startswith("vector")]
            if path in seen:
                continue
            seen.add(path)
            for column in vectors:
                if wrong := _count_wrong(fragment, column):
                    what = f"{wrong:,} rows of {column} hold NaN or are not of unit norm"
                    report.damages.append(Damage(report.table, path, what, wrong, tags))
    ordered = np.sort(np.concatenate(keys))
    doubled = int((ordered[1:] == ordered[:-1]).sum())
    if doubled:
        report.damages.append(Damage(report.table, "id", f"{doubled:,} ids are there twice", doubled, tags))
    report.rows = int(dataset.count_rows())


def _count_wrong(fragment: Any, column: str) -> int:
    dim = fragment.schema.field(column).type.list_size
    wrong = 0
    for batch in fragment.to_batches(columns=[column], batch_size=max(64, min(8192, BLOCK_ENTRIES // dim))):
        block = to_numpy(batch.column(0)).astype(np.float32)
        norms = np.sqrt(np.einsum("nd,nd->n", block, block))
        wrong += int((~(np.abs(norms - 1) <= STORED_NORM_TOLERANCE)).sum())
    return wrong


def drop_damaged(
    workspace: Workspace, name: str, damages: list[Damage], on_wait: Callable[[], None] = lambda: None
) -> int:
    """Take damaged units out of a teacher's table, so that their texts count as missing; says how many rows went.

    A table whose newest version cannot be opened goes back to the one before; the manifest is kept in `_damaged/`.
    """
    with file_lock(workspace, name, on_wait):
        while _is_unreadable(workspace, name):
            manifests = sorted(f for f in session(table_uri(workspace, name)).list(VERSIONS) if f.endswith(".manifest"))
            _set_aside(table_uri(workspace, name), manifests[0])  # names count down: the newest comes first
        dataset = open_table(workspace, name)
        if dataset is None:
            return 0
        places = {damage.place for damage in damages}
        units = [
            fragment
            for fragment in dataset.get_fragments()
            if places & {*(f"data/{data.path}" for data in fragment.data_files()), fragment.deletion_file() or ""}
        ]
        if "id" in places:
            units += _units_with_doubles(dataset, units)
        if units:
            drop_units(dataset.uri, dataset, sorted({unit.fragment_id for unit in units}))
        return sum(unit.physical_rows for unit in units)


def _is_unreadable(workspace: Workspace, name: str) -> bool:
    try:
        open_table(workspace, name)
    except DamageError:
        return any(f.endswith(".manifest") for f in session(table_uri(workspace, name)).list(VERSIONS))
    return False


def _set_aside(uri: str, manifest: str) -> None:
    """Keep a copy of a manifest that cannot be read, and take it out of the table."""
    files = session(uri)
    with tempfile.TemporaryDirectory() as folder:
        files.download_file(manifest, f"{folder}/manifest")
        files.upload_file(f"{folder}/manifest", f"_damaged/{manifest.rsplit('/', 1)[-1]}")
    files.delete_file(manifest)


def _units_with_doubles(dataset: Any, dropped: list[Any]) -> list[Any]:
    """Units with ids that an earlier unit has, too."""
    gone, known, found = {unit.fragment_id for unit in dropped}, to_keys([]), []
    for fragment in dataset.get_fragments():
        if fragment.fragment_id in gone:
            continue
        keys = np.concatenate([to_keys([]), *(to_keys(b.column(0)) for b in fragment.to_batches(columns=["id"]))])
        if len(np.unique(keys)) < len(keys) or np.isin(keys, known).any():
            found.append(fragment)
        else:
            known = np.concatenate([known, keys])
    return found


def teacher_tables(names: list[str]) -> list[str]:
    """Those tables that hold a teacher's vectors."""
    return [name for name in names if name.startswith(PREFIX)]


def snapshot_tables(names: list[str]) -> list[str]:
    """Those tables that hold a recipe's snapshots."""
    return [name for name in names if name.endswith(TABLE)]
