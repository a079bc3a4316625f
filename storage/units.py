"""Units of work: a worker writes one file and its digest, a committer makes it part of a table.

A unit is a Lance fragment of tens of thousands of rows. What was written is read back and hashed before it is
committed; the digest is kept in the table's folder `_digests/`, so that a copied folder can still be verified.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from stella_assets.storage.errors import DiskSpaceError, StorageError
from stella_assets.storage.lance_errors import translate_lance_errors
from stella_assets.storage.seals import UnitDigest, digest_path, seal_version

UNIT_ROWS = 32_768
"""Rows of one unit of work and one commit: small appends cost more than what they write."""
READ_BYTES = 16 * 2**20
"""Of one read: an object store answers each request in tens of milliseconds, so blocks are large."""


def write_unit(uri: str, batches: Iterator[pa.RecordBatch] | pa.Table, schema: pa.Schema) -> dict[str, Any]:
    """Write one file of rows into the folder of a table, with its digest, and commit nothing.

    Args:
        uri: The table's folder; it need not exist yet.
        batches: The rows.
        schema: The table's schema.

    Returns:
        The fragment's metadata, as Lance keeps it: plain JSON values that travel between processes.

    Raises:
        DiskSpaceError: The disk is full.
        StoreError: The place cannot be written.
    """
    from lance.fragment import write_fragments

    raised: list[Exception] = []
    reader = (
        batches.to_reader()
        if isinstance(batches, pa.Table)
        else pa.RecordBatchReader.from_batches(schema, _watch(batches, raised))
    )
    try:
        with translate_lance_errors(uri):
            # "overwrite" says that the fields are numbered by this schema; nothing is replaced before a commit.
            # The limits are out of reach, so one unit is always one file, which the unpacking demands.
            (fragment,) = write_fragments(
                reader, uri, schema=schema, mode="overwrite", max_rows_per_file=2**31, max_bytes_per_file=2**50
            )
    except (StorageError, OSError, RuntimeError, ValueError):
        if raised:  # Lance wraps it in an error of its own
            raise raised[0] from None
        raise
    unit = dict(fragment.to_json())
    # Before the unit can be committed: a committed file without a digest would count as damaged.
    for file in unit["files"]:
        write_digest(uri, data_file(file["path"]), file["file_size_bytes"], unit["physical_rows"])
    return unit


def data_file(name: str) -> str:
    """Path of a data file in the table's folder, as digests and damages name it."""
    return f"data/{name}"


def fragment_files(fragment: Any) -> list[str]:
    """Paths of a fragment's files in the table's folder: its data files, and its deletions if it has any."""
    deletion = fragment.deletion_file()
    return [*(data_file(file.path) for file in fragment.data_files()), *([deletion] if deletion else [])]


def _watch(batches: Iterator[pa.RecordBatch], raised: list[Exception]) -> Iterator[pa.RecordBatch]:
    """The batches, keeping the error that making them raises."""
    try:
        yield from batches
    except Exception as error:
        raised.append(error)
        raise


def append_units(uri: str, schema: pa.Schema, units: Sequence[Mapping[str, Any]], dataset: Any) -> None:
    """Make units that workers wrote part of a table, in one commit; `dataset` is None for a table yet to be made.

    Raises:
        ConflictError: The table was made by another machine meanwhile.
        StoreError: The place cannot be written.
    """
    import lance
    from lance.fragment import FragmentMetadata

    fragments = [FragmentMetadata.from_json(json.dumps(unit)) for unit in units]
    operation = lance.LanceOperation
    with translate_lance_errors(uri):
        if dataset is None:
            # No retries: Lance would rebase onto the table that another machine has just made, and replace it.
            lance.LanceDataset.commit(uri, operation.Overwrite(schema, fragments), max_retries=0)
        else:
            # Appends of several writers do not conflict: Lance rebases them onto the newest version.
            lance.LanceDataset.commit(uri, operation.Append(fragments), read_version=dataset.version)
    seal_version(uri)


def drop_units(uri: str, dataset: Any, fragments: Sequence[int]) -> None:
    """Take damaged units out of a table, in one commit; their files stay until garbage collection.

    Raises:
        ConflictError: Another machine took one out meanwhile.
    """
    import lance

    with translate_lance_errors(uri):
        # Whole fragments, so no deletion files are written and no row is moved.
        operation = lance.LanceOperation.Delete([], list(fragments), "stella: damaged units")
        lance.LanceDataset.commit(uri, operation, read_version=dataset.version)
    seal_version(uri)


def write_digest(uri: str, path: str, size: int, rows: int) -> UnitDigest:
    """Read a file back and keep its digest.

    Raises:
        DiskSpaceError: The file is not as it was written: the disk is full, or failing.
    """
    try:
        # Read back from the store, not hashed on the way out: a full disk or a bad cable shows here.
        digest = UnitDigest(path, rows, size, hash_file(uri, path, size))
    except OSError as error:
        raise DiskSpaceError(
            f"{uri}/{path}: {size:,} bytes were written and cannot be read back: the disk is full, or failing. Nothing "
            "that was committed is lost.",
            f"{uri}/{path}",
        ) from error
    with translate_lance_errors(uri), tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(asdict(digest), file)
        file.flush()
        # Through Lance's session, so that credentials and addresses are those of the table itself.
        session(uri).upload_file(file.name, digest_path(path))
    return digest


def read_digest(uri: str, path: str) -> UnitDigest | None:
    """The digest that was kept when the file was written, if there is one that can be read."""
    files = session(uri)
    where = digest_path(path)
    if not files.contains(where):
        return None
    with tempfile.NamedTemporaryFile("rb", suffix=".json") as file:
        files.download_file(where, file.name)
        try:
            return UnitDigest(**json.loads(Path(file.name).read_bytes()))
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError):
            return None


def hash_file(uri: str, path: str, size: int) -> str:
    """SHA-256 of a file of a table, in hexadecimal, read in blocks."""
    files, content = session(uri), hashlib.sha256()
    for start in range(0, size, READ_BYTES):
        content.update(files.read_range(path, start, min(READ_BYTES, size - start)))
    return content.hexdigest()


def session(uri: str) -> Any:
    """Raw access to the files of a table, with Lance's own object store."""
    from lance.file import LanceFileSession

    return LanceFileSession(uri)
