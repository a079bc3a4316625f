"""Whether a table is whole: its files have the digests that they were written with, and its rows are valid."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stella_assets.storage.codecs import UNIT_NORM, block_rows, vectors_to_numpy
from stella_assets.storage.database import open_table, table_uri
from stella_assets.storage.errors import DamageError, StoreError
from stella_assets.storage.files import file_digest
from stella_assets.storage.keys import to_keys
from stella_assets.storage.lance_errors import translate_lance_errors
from stella_assets.storage.locks import file_lock
from stella_assets.storage.removal import set_aside
from stella_assets.storage.seals import TAGS, VERSIONS, manifest_path, version_digest
from stella_assets.storage.table_files import wrong_files
from stella_assets.storage.units import data_file, drop_units, fragment_files, hash_file, read_digest, session
from stella_assets.storage.workspace import Workspace

STORED_NORM_TOLERANCE = 2e-3
"""Of unit vectors kept as float16: 1e-3 on entry, plus rounding of each value by up to 2^-11 = 4.9e-4 of it."""


@dataclass(frozen=True)
class Damage:
    """A file or row that is not as it was written.

    Attributes:
        table: The table.
        place: The file, or what part of the table.
        what: What is wrong, in words.
        rows: Rows that are lost or in doubt.
        tags: Tags of the versions that it is part of.
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

    It finds files that are missing, truncated, changed or without a digest, values that are not finite or not of unit
    norm, and ids that are there twice.

    Args:
        workspace: Where the store is.
        name: The table.
        on_bytes: Told the size of each file after it was read, for a progress bar.

    Returns:
        What was looked at and every damage found; a damaged table is reported, not raised.
    """
    report = TableReport(name)
    versions = list(_versions(workspace, name, report))
    report.versions = len(versions)
    files = _referenced(versions)
    if not versions:
        return report
    uri = versions[0][1].uri
    try:
        with translate_lance_errors(uri):
            sizes = {row["path"]: row["size_bytes"] for row in versions[0][1].all_files().read_all().to_pylist()}
    except StoreError as error:  # e.g. a link that leads to itself
        report.damages.append(Damage(name, ".", f"its files cannot be listed: {error}", 0))
        return report
    # Bytes before rows: decoding a damaged file can fail anywhere, so rows are read only where the bytes are right.
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
    folder = Path(uri) if "://" not in (uri := newest.uri) else Path()
    if wrong := _wrong_manifest(folder, None):
        report.damages.append(Damage(name, VERSIONS, wrong, 0))
        return
    tags = _tags(newest, report)
    # Oldest first: values shared by several versions are reported under the version that brought them.
    for tag, _ in sorted(tags.items(), key=lambda item: item[1]):
        try:
            opened = open_table(workspace, name, tag)
        except StoreError as error:
            report.damages.append(Damage(name, VERSIONS, f"tag {tag} cannot be opened: {error}", 0, (tag,)))
            continue
        if wrong := _wrong_manifest(folder, tag):
            report.damages.append(Damage(name, VERSIONS, wrong, 0, (tag,)))
        else:
            yield tag, opened
    if newest.version not in tags.values():
        yield "", newest


def _tags(dataset: Any, report: TableReport) -> dict[str, int]:
    """Versions by tag. Lance lists all tags or none, so those of a local table are read one by one."""
    if "://" in dataset.uri:
        return {tag: int(entry["version"]) for tag, entry in dataset.tags.list().items()}
    found: dict[str, int] = {}
    for path in sorted((Path(dataset.uri) / TAGS).glob("*.json")):
        try:
            found[path.stem] = int(json.loads(path.read_text(encoding="utf-8"))["version"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            what = f"tag {path.stem} cannot be read: {error}"
            report.damages.append(Damage(report.table, VERSIONS, what, 0, (path.stem,)))
    return found


def _referenced(versions: list[tuple[str, Any]]) -> dict[str, _File]:
    files: dict[str, _File] = {}
    for tag, dataset in versions:
        for fragment in dataset.get_fragments():
            for path in fragment_files(fragment):
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
    # The cheap tests first: a digest reads the whole file.
    if size != digest.bytes:
        return f"is {'truncated' if size < digest.bytes else 'too long'}: {size:,} of {digest.bytes:,} bytes"
    if file.rows != digest.rows:
        return f"holds {digest.rows:,} rows, and the table says {file.rows:,}"
    if hash_file(uri, path, size) != digest.sha256:
        return "was changed: its bytes are not those that were written"
    return ""


def _verify_rows(report: TableReport, tag: str, dataset: Any, damaged: set[str], seen: set[str]) -> None:
    """Verify ids and values of the units whose files are whole; the values of a file that versions share, once."""
    keys, tags = [to_keys([])], (tag,) if tag else ()
    # A data file lists its columns by field id, which stays the same when a column is renamed.
    names_by_id = {column.id(): column.name() for column in dataset.lance_schema.fields()}
    unit_norm = (dataset.schema.metadata or {}).get(UNIT_NORM.encode()) != b"false"
    for fragment in dataset.get_fragments():
        if not damaged.isdisjoint(fragment_files(fragment)):
            continue
        keys += [to_keys(batch.column(0)) for batch in fragment.to_batches(columns=["id"])]
        for data in fragment.data_files():
            path = data_file(data.path)
            if path in seen:
                continue
            seen.add(path)
            for column in (names_by_id[i] for i in data.fields if i in names_by_id):
                if wrong := _count_wrong(fragment, column, unit_norm):
                    what = f"{wrong:,} values of {column} are NaN or infinity, or not of unit norm"
                    report.damages.append(Damage(report.table, path, what, wrong, tags))
    # Only within one version: several versions share the same rows.
    ordered = np.sort(np.concatenate(keys))
    doubled = int((ordered[1:] == ordered[:-1]).sum())
    if doubled:
        report.damages.append(Damage(report.table, "id", f"{doubled:,} ids are there twice", doubled, tags))
    report.rows = int(dataset.count_rows())


def _count_wrong(fragment: Any, column: str, unit_norm: bool) -> int:
    """Vectors and numbers of a column that `check` of their codec would have refused."""
    kind = fragment.schema.field(column).type
    ragged = pa.types.is_list(kind)
    vectors = pa.types.is_fixed_size_list(kind.value_type if ragged else kind)
    if not vectors and not pa.types.is_floating(kind):
        return 0
    dim = (kind.value_type if ragged else kind).list_size if vectors else 1
    wrong = 0
    for batch in fragment.to_batches(columns=[column], batch_size=block_rows(dim)):
        values = batch.column(0).flatten() if ragged else batch.column(0)
        if not vectors:
            wrong += int((~np.isfinite(values.to_numpy(zero_copy_only=False))).sum())
            continue
        block = vectors_to_numpy(values).astype(np.float32)
        # In float32: squares of float16 entries overflow float16 from 256 on.
        norms = np.sqrt(np.einsum("nd,nd->n", block, block))
        # NaN compares as false, and a norm is finite only if every entry is, so one number per row tells.
        valid = np.abs(norms - 1) <= STORED_NORM_TOLERANCE if unit_norm else np.isfinite(norms)
        wrong += int((~valid).sum())
    return wrong


def drop_damaged(
    workspace: Workspace, name: str, damages: list[Damage], on_wait: Callable[[], None] = lambda: None
) -> int:
    """Take damaged units out of a table, so that their keys count as missing.

    A table whose newest version cannot be opened goes back to the one before; the manifest is kept in `_damaged/`.

    Args:
        workspace: Where the store is.
        name: The table.
        damages: What `verify_table` found.
        on_wait: Told when another process is writing this table, before waiting for it.

    Returns:
        How many rows went.
    """
    with file_lock(workspace, name, on_wait):
        restore_readable(workspace, name)
        dataset = open_table(workspace, name)
        if dataset is None:
            return 0
        places = {damage.place for damage in damages}
        units = [unit for unit in dataset.get_fragments() if not places.isdisjoint(fragment_files(unit))]
        if "id" in places:
            units += _units_with_doubles(dataset, units)
        if units:
            drop_units(dataset.uri, dataset, sorted({unit.fragment_id for unit in units}))
        return sum(unit.physical_rows for unit in units)


def mend_table(workspace: Workspace, name: str, on_wait: Callable[[], None] = lambda: None) -> int:
    """Take out what is damaged of a local table's newest version, before it is filled; it is quick if all is well.

    Args:
        workspace: Where the store is.
        name: The table.
        on_wait: Told when another process is writing this table, before waiting for it.

    Returns:
        How many rows went.
    """
    wrong = wrong_files(workspace, name)
    if not wrong:
        return 0
    return drop_damaged(workspace, name, [Damage(name, place, what, 0) for place, what in wrong.items()], on_wait)


def restore_readable(workspace: Workspace, name: str) -> None:
    """Go back to the newest version of a table that can be read; the caller holds the table's lock.

    What is taken out of the way is kept: it may name values that were paid for.
    """
    uri = table_uri(workspace, name)
    for path in sorted((Path(uri) / TAGS).glob("*.json")) if not workspace.remote else ():
        # A tag that leads nowhere or elsewhere: the snapshot's artefact says what to write again.
        if _wrong_manifest(Path(uri), path.stem).startswith(TAGS) or not _names_a_version(path):
            _set_aside(uri, f"{TAGS}/{path.name}")
    while _is_unreadable(workspace, name):
        manifests = _manifests(uri)
        if len(manifests) > 1 or workspace.remote:
            _set_aside(uri, manifests[0])  # names count down: the newest comes first
        else:  # no version is left to go back to
            set_aside(Path(uri), Path(workspace.vectors))


def _names_a_version(tag: Path) -> bool:
    try:
        return int(json.loads(tag.read_text(encoding="utf-8"))["version"]) > 0
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _manifests(uri: str) -> list[str]:
    return sorted(file for file in session(uri).list(VERSIONS) if file.endswith(".manifest"))


def _is_unreadable(workspace: Workspace, name: str) -> bool:
    uri = table_uri(workspace, name)
    try:
        dataset = open_table(workspace, name)
    except DamageError:
        # In an object store without a manifest left there is no version to go back to, and the loop must end.
        return not workspace.remote or bool(_manifests(uri))
    return dataset is not None and not workspace.remote and bool(_wrong_manifest(Path(uri), None))


def _wrong_manifest(folder: Path, tag: str | None) -> str:
    """What is wrong with the manifest or the tag of a version of a local table, in words, or nothing."""
    for path in (f"{TAGS}/{tag}.json" if tag else None, manifest_path(folder, tag)):
        if path and (folder / path).is_file() and file_digest(folder / path) != version_digest(folder, path):
            return f"{path} was changed: its bytes are not those that were committed"
    return ""


def _set_aside(uri: str, manifest: str) -> None:
    """Keep a copy of a manifest that cannot be read, and take it out of the table."""
    files = session(uri)
    with tempfile.TemporaryDirectory() as folder:
        files.download_file(manifest, f"{folder}/manifest")
        # Copied before it is deleted: object stores cannot rename, and a manifest names paid values.
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
