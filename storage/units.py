"""Units of work: a worker writes one file and its digest, a committer makes it part of a table.

A unit is a Lance fragment of tens of thousands of rows. What was written is read back and hashed before it is
committed; the digest lies beside the table in `_digests/`, so that a copied folder can still be verified.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.database import translate_lance_errors
from storage.workspace import DiskSpaceError

READ_BYTES = 16 * 2**20
DIGESTS = "_digests"


@dataclass(frozen=True)
class UnitDigest:
    """What a file of a table should be.

    Attributes:
        path: Inside the table's folder.
        rows: Rows of the unit, deleted ones included.
        bytes: Size.
        sha256: Of the file's bytes, in hexadecimal.
    """

    path: str
    rows: int
    bytes: int
    sha256: str


def write_unit(uri: str, batches: Iterator[pa.RecordBatch] | pa.Table, schema: pa.Schema) -> dict[str, Any]:
    """Write one file of rows into the folder of a table, with its digest, and commit nothing.

    Returns:
        The fragment's metadata, as Lance keeps it: plain JSON values that travel between processes.

    Raises:
        DiskSpaceError: The disk is full.
        StoreError: The place cannot be written.
    """
    from lance.fragment import write_fragments

    reader = (
        batches.to_reader() if isinstance(batches, pa.Table) else pa.RecordBatchReader.from_batches(schema, batches)
    )
    with translate_lance_errors(uri):
        # "overwrite" says that the fields are numbered by this schema; nothing is replaced before a commit.
        (fragment,) = write_fragments(
            reader, uri, schema=schema, mode="overwrite", max_rows_per_file=2**31, max_bytes_per_file=2**50
        )
    unit = dict(fragment.to_json())
    for file in unit["files"]:
        write_digest(uri, f"data/{file['path']}", file["file_size_bytes"], unit["physical_rows"])
    return unit


def write_digest(uri: str, path: str, size: int, rows: int) -> UnitDigest:
    """Read a file back and keep its digest.

    Raises:
        DiskSpaceError: The file is not as it was written: the disk is full, or failing.
    """
    try:
        digest = UnitDigest(path, rows, size, hash_file(uri, path, size))
    except OSError as error:
        raise DiskSpaceError(
            f"{uri}/{path}: {size:,} bytes were written and cannot be read back: the disk is full, or failing. Nothing "
            "that was committed is lost; free some space and run again."
        ) from error
    with translate_lance_errors(uri), tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(asdict(digest), file)
        file.flush()
        session(uri).upload_file(file.name, _digest_path(path))
    return digest


def read_digest(uri: str, path: str) -> UnitDigest | None:
    """The digest that was kept when the file was written, if there is one that can be read."""
    files = session(uri)
    where = _digest_path(path)
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


def _digest_path(path: str) -> str:
    return f"{DIGESTS}/{Path(path).name}.json"
