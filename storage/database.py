"""The vector database: a folder or an object store of Lance tables, and vectors and ids between Arrow and numpy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from storage.workspace import DiskSpaceError, Workspace

FORMAT = 1
"""Format of the tables, kept in their metadata. Raised when an older version of this package could misread them."""

ID_CHARS = 32
"""An id is 128 bits of a hash in hexadecimal."""


class StoreError(ValueError):
    """The store cannot be used as it is: no store, made by a newer version, or out of reach."""


class ConflictError(StoreError):
    """Another machine changed the table at the same moment; nothing was committed."""


class DamageError(StoreError):
    """The store is damaged; a repair may take out what is."""


def connect(uri: str) -> Any:
    """Open the LanceDB database that lies at `uri`, made on the first write. Credentials come from the environment."""
    import lancedb

    with translate_lance_errors(uri):
        return lancedb.connect(uri)


def table_names(workspace: Workspace) -> list[str]:
    """All tables of the database, by name.

    Raises:
        StoreError: The database cannot be read.
    """
    with translate_lance_errors(workspace.vectors):
        database, names, token = connect(workspace.vectors), [], None
        while True:
            page = database.list_tables(page_token=token)
            names.extend(page.tables)
            token = page.page_token
            if not token:
                return sorted(names)


def table_uri(workspace: Workspace, name: str) -> str:
    """Where a table lies."""
    return f"{workspace.vectors}/{name}.lance"


def open_table(workspace: Workspace, name: str, version: int | str | None = None) -> Any:
    """The Lance dataset of a table, at a version or a tag, or None if there is no such table.

    Raises:
        StoreError: What lies there is no table, is damaged, or was made by a newer version of this package.
    """
    import lance

    uri = table_uri(workspace, name)
    with translate_lance_errors(uri):
        if name not in table_names(workspace):
            return None
        try:
            dataset = lance.dataset(uri, version=version)
        except ValueError as error:
            if "was not found" not in str(error):
                raise
            if not _was_committed(uri):  # a writer has not come to its first commit, or was killed before it
                return None
            dataset = _open_again(uri, version)
    _require_format(uri, dataset.schema.metadata or {})
    return dataset


def _was_committed(uri: str) -> bool:
    """Whether there are traces of a commit, or of something that is not ours.

    A first commit leaves a transaction that begins with 0, then makes the manifest appear in one step.
    """
    from lance.file import LanceFileSession

    files = LanceFileSession(uri).list()
    return not files or any(not UNCOMMITTED.match(file) for file in files)


def _open_again(uri: str, version: int | str | None) -> Any:
    """Open a table whose first commit may have come between looking for it and looking why it is not there."""
    import lance

    try:
        return lance.dataset(uri, version=version)
    except ValueError:
        raise StoreError(f"{uri}: holds no readable table. Move it away, or restore it from a copy.") from None


UNCOMMITTED = re.compile(r"(data|_digests|_deletions)/|_transactions/(0-|\.tmp)|_versions/\.tmp")


def _require_format(uri: str, metadata: Mapping[bytes, bytes]) -> None:
    found = metadata.get(b"stella.format")
    if found is None:
        raise StoreError(f"{uri}: a Lance table, but none of ours: it has no `stella.format`. Move it elsewhere.")
    if int(found) > FORMAT:
        raise StoreError(
            f"{uri}: has format {int(found)}, and this version of stella-distil reads up to {FORMAT}. Upgrade it."
        )


@contextmanager
def translate_lance_errors(uri: str) -> Iterator[None]:
    """Turn what Lance says of disks, permissions and damage into errors with a remedy; others pass as they are.

    Raises:
        DiskSpaceError: The disk is full.
        ConflictError: Another machine committed first.
        StoreError: The store is out of reach or damaged.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, StoreError | DiskSpaceError):
            raise
        said = str(error)
        for words, remedy in EXPLANATIONS:
            if any(word in said for word in words):
                raise KINDS.get(words, StoreError)(f"{uri}: {remedy} ({_what_was_said(said)})") from error
        raise


NO_SPACE = ("No space left on device", "os error 28", "File too large", "Disk quota exceeded")
CONFLICT = ("ommit conflict", "Incompatible transaction", "Dataset already exists", "/0.manifest was not found")
UNREADABLE = (
    "Not found",
    "NotFound",
    "No such file",
    "LanceError(IO)",
    "Invalid",
    "Encountered",
    "out of bounds",
    "failed to",
)
EXPLANATIONS: tuple[tuple[tuple[str, ...], str], ...] = (
    (NO_SPACE, "the disk is full. Nothing that was committed is lost; free some space and run again."),
    (
        (
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "ExpiredToken",
            "InvalidToken",
            "Failed to get AWS credentials",
        ),
        "the object store refuses the credentials, or there are none. Set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
        "AWS_REGION.",
    ),
    (
        ("BadScheme", "URL scheme is not allowed"),
        "the object store's address is plain http. Set AWS_ALLOW_HTTP=true, or an https address as AWS_ENDPOINT_URL.",
    ),
    (
        ("error sending request", "ConnectError", "kind: Connect", "kind: Timeout", "Connection refused", "dns error"),
        "the object store does not answer. Correct AWS_ENDPOINT_URL and AWS_REGION, or run again when it does.",
    ),
    (
        ("Permission denied", "os error 13", "Read-only file system", "AccessDenied", "403 Forbidden"),
        "no permission. Allow it, or let STELLA_HOME or STELLA_VECTORS name another place.",
    ),
    (("NoSuchBucket",), "there is no such bucket. Create it, or correct STELLA_VECTORS."),
    (CONFLICT, "another machine changed this table at the same moment. Run again."),
    (("Not a directory", "os error 20", "File exists"), "is no folder. Move the file away that lies there."),
    (
        UNREADABLE,
        "cannot be read. `stella vectors verify` names what is damaged, and with --repair makes it again.",
    ),
)


KINDS: Mapping[tuple[str, ...], type[ValueError]] = {
    NO_SPACE: DiskSpaceError,
    CONFLICT: ConflictError,
    UNREADABLE: DamageError,
}


def _what_was_said(text: str) -> str:
    """What an object store answered, else how the error begins."""
    if answer := re.search(r"<Code>(\w+)</Code>\s*<Message>([^<]*)", text):
        return f"{answer[1]}: {answer[2]}"
    return text.strip().split("\n")[0].split(", /")[0][:200]


def to_arrow(vectors: np.ndarray) -> pa.FixedSizeListArray:
    """`[n, dim]` of any float type as an Arrow fixed-size list of float16."""
    flat = np.ascontiguousarray(vectors, dtype=np.float16).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float16()), vectors.shape[1])


def to_numpy(column: pa.ChunkedArray | pa.FixedSizeListArray) -> np.ndarray:
    """An Arrow fixed-size list of float16 as `[n, dim]`, without a copy where it lies in one chunk."""
    array = column
    if isinstance(column, pa.ChunkedArray):
        array = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), array.type.list_size)


def to_keys(ids: pa.Array | pa.ChunkedArray | list[str]) -> np.ndarray:
    """Ids as `[n]` of 16 bytes: half the memory of their text, and quick to sort and search.

    Raises:
        StoreError: Something else than 32 hexadecimal digits is among them.
    """
    array = pa.array(ids, pa.string()) if isinstance(ids, list) else ids
    if isinstance(array, pa.ChunkedArray):
        return np.concatenate([to_keys(chunk) for chunk in array.chunks]) if array.num_chunks else to_keys([])
    if not len(array):
        return np.empty(0, dtype="S16")
    if array.null_count:
        raise StoreError(f"{array.null_count} ids are null; an id is {ID_CHARS} hexadecimal digits.")
    offsets = np.frombuffer(array.buffers()[1], dtype=np.int32)[array.offset : array.offset + len(array) + 1]
    if (np.diff(offsets) != ID_CHARS).any():
        odd = next(value for value in array.to_pylist() if len(value) != ID_CHARS)
        raise StoreError(f"id {odd!r}: an id is {ID_CHARS} hexadecimal digits of the text's hash.")
    text = array.buffers()[2][int(offsets[0]) : int(offsets[-1])].to_pybytes().decode()
    try:
        return np.frombuffer(bytes.fromhex(text), dtype="S16")
    except ValueError:
        raise StoreError(f"an id among {array[0]}, ... is not hexadecimal; ids are hashes of texts.") from None
