"""The vector database: a folder or an object store of Lance tables.

Importing lance takes half a second and lancedb a second, so both are imported only where they are used, and what a
local folder tells by its file names is read from there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stella_assets.storage.errors import AccessError, DamageError, FormatError, MissingSnapshotError, StoreError
from stella_assets.storage.files import write_atomically
from stella_assets.storage.lance_errors import translate_lance_errors
from stella_assets.storage.removal import remove_folder
from stella_assets.storage.workspace import Workspace

FORMAT = 1
"""Format of the tables, kept in their metadata. Raised when an older version of this package could misread them."""
SUFFIX = ".lance"
NOTES = "_notes"
"""Folder in a table's: files of `storage.notes`."""
# Everything that a writer leaves before its first commit: files, digests, notes, and the transaction of version 0.
UNCOMMITTED = re.compile(r"(data|_digests|_deletions|_notes|_damaged)/|_transactions/(0-|\.tmp)|_versions/\.tmp")


def connect(uri: str) -> Any:
    """Open the LanceDB database at `uri`, made on the first write. Credentials come from the environment."""
    import lancedb

    with translate_lance_errors(uri):
        return lancedb.connect(uri)


def table_names(workspace: Workspace) -> list[str]:
    """All tables of the database, by name.

    Raises:
        StoreError: The database cannot be read.
    """
    if workspace.remote:
        return _remote_table_names(workspace.vectors)
    folder = Path(workspace.vectors)
    try:
        entries = list(folder.iterdir())
    except FileNotFoundError:  # nothing was written yet
        return []
    except NotADirectoryError:
        raise StoreError(f"{folder}: is not a folder.", folder) from None
    except PermissionError:
        raise AccessError(f"{folder}: no permission to read it.", folder) from None
    return sorted(entry.stem for entry in entries if entry.suffix == SUFFIX and entry.is_dir())


def _remote_table_names(uri: str) -> list[str]:
    database, names, token = connect(uri), [], None
    with translate_lance_errors(uri):
        while True:
            page = database.list_tables(page_token=token)
            names.extend(page.tables)
            token = page.page_token
            if not token:
                return sorted(names)


def table_uri(workspace: Workspace, name: str) -> str:
    """Where a table lies."""
    return f"{workspace.vectors}/{name}{SUFFIX}"


def drop_table(workspace: Workspace, name: str) -> None:
    """Delete a table with all its versions."""
    if not workspace.remote:
        remove_folder(Path(table_uri(workspace, name)), Path(workspace.vectors))
        return
    import lance

    with translate_lance_errors(workspace.vectors):
        lance.LanceDataset.drop(table_uri(workspace, name), {})


def open_table(workspace: Workspace, name: str, version: int | str | None = None) -> Any:
    """The Lance dataset of a table, at a version or a tag, or None if there is no such table.

    Args:
        workspace: Where the store is.
        name: The table.
        version: A version number or a tag; the newest version when left out.

    Returns:
        A `lance.LanceDataset`, or None.

    Raises:
        StoreError: What lies there is not a table, cannot be reached, or has no such version.
        DamageError: The table is damaged.
        FormatError: It was made by a newer version of this package.
        MissingSnapshotError: The table has no such tag.
    """
    uri = table_uri(workspace, name)
    if name not in table_names(workspace):
        return None
    import lance

    with translate_lance_errors(uri):
        try:
            dataset = lance.dataset(uri, version=version)
        except ValueError as error:
            # Lance raises ValueError for a missing table as for every other fault; only the message differs.
            if isinstance(version, str) and version not in _tag_names(uri):
                raise MissingSnapshotError(f"{uri}: has no tag {version!r}.", uri) from None
            if "was not found" not in str(error):
                raise
            if not _was_committed(uri):  # a writer has not come to its first commit, or was killed before it
                return None
            dataset = _open_again(uri, version)
    _require_format(uri, dataset.schema.metadata or {})
    return dataset


def count_rows(workspace: Workspace, name: str) -> int:
    """Rows of a table's newest version; 0 if there is no such table.

    Of a local table, the count is kept for the newest manifest file, which a commit, a repair or a new table of that
    name replaces: then it is counted again. So most calls neither import Lance nor open the table.
    """
    state = _newest_manifest(workspace, name)
    cached = workspace.locks / f"{name}.rows.json"
    if state is not None:
        with suppress(FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError, KeyError):
            known = json.loads(cached.read_text(encoding="utf-8"))
            if known["manifest"] == state:
                return int(known["rows"])
    dataset = open_table(workspace, name)
    rows = int(dataset.count_rows()) if dataset is not None else 0
    # Reading is not locked: a count taken during a commit must not be kept for the manifest of before or after.
    if state is not None and _newest_manifest(workspace, name) == state:
        write_atomically(cached, json.dumps({"manifest": state, "rows": rows}))
    return rows


def table_tags(workspace: Workspace, name: str) -> dict[str, int]:
    """The tags of a table with their versions, oldest first; a repair gives an old tag a new version.

    Raises:
        StoreError: The table cannot be read.
    """
    dataset = open_table(workspace, name)
    if dataset is None:
        return {}
    with translate_lance_errors(dataset.uri):
        tags = dataset.tags.list()
    # The version decides between tags that were made at the same moment.
    ordered = sorted(tags, key=lambda tag: (tags[tag]["created_at"], tags[tag]["version"]))
    return {tag: int(tags[tag]["version"]) for tag in ordered}


def set_tag(workspace: Workspace, name: str, tag: str, version: int) -> None:
    """Have a tag name a version of a table, whether the tag is new or not.

    Raises:
        StoreError: The table cannot be written.
    """
    import lance

    uri = table_uri(workspace, name)
    # Lance makes the folder of a plain path's tags under the percent-encoded path: a folder too many next to a path
    # like `/home/zoë`, or an error where it must not be made. The object store of local files makes none.
    dataset = lance.dataset(uri if workspace.remote else f"file-object-store://{quote(str(Path(uri).absolute()))}")
    with translate_lance_errors(uri):
        # Tags belong to the table, not to a version, so any version of the dataset will do.
        if tag in dataset.tags.list():
            dataset.tags.update(tag, version)
        else:
            dataset.tags.create(tag, version)


def has_tag(workspace: Workspace, name: str, tag: str) -> bool:
    """Whether a table has a tag whose version is there; of a local table, without importing Lance."""
    if workspace.remote:
        return tag in table_tags(workspace, name)
    folder = Path(table_uri(workspace, name))
    try:
        version = int(json.loads((folder / "_refs" / "tags" / f"{tag}.json").read_text(encoding="utf-8"))["version"])
    except FileNotFoundError:
        return False
    except (OSError, KeyError, TypeError, ValueError):
        return tag in table_tags(workspace, name)
    # Lance names the manifest of a version v 2^64 - 1 - v, so that listings begin with the newest; older tables use v.
    return any((folder / "_versions" / f"{number}.manifest").is_file() for number in (2**64 - 1 - version, version))


def _newest_manifest(workspace: Workspace, name: str) -> list[str | int] | None:
    """Name, size, time and inode of a local table's newest manifest; None if there is none to be told by its name."""
    if workspace.remote:
        return None
    manifests = list((Path(table_uri(workspace, name)) / "_versions").glob("*.manifest"))
    # Only names of 20 digits count down; in older tables the smallest name would be the oldest version.
    if not manifests or any(len(path.stem) != len(str(2**64)) for path in manifests):
        return None
    newest = min(manifests)  # names count down, so that the newest comes first
    try:
        status = newest.stat()
    except FileNotFoundError:  # another process is removing versions
        return None
    # A table that was dropped and made again has the same manifest name, but another inode or time.
    return [newest.name, status.st_size, status.st_mtime_ns, status.st_ino]


def _was_committed(uri: str) -> bool:
    """Whether there are traces of a commit, or files of another program.

    A first commit leaves a transaction that begins with 0, then makes the manifest appear in one step.
    """
    from lance.file import LanceFileSession

    files = LanceFileSession(uri).list()
    # An empty local folder is what a removal that was killed leaves. An object store has no folders, so there the list
    # was refused.
    return ("://" in uri and not files) or any(not UNCOMMITTED.match(file) for file in files)


def _tag_names(uri: str) -> list[str]:
    from lance.file import LanceFileSession

    return [Path(file).stem for file in LanceFileSession(uri).list() if file.startswith("_refs/tags/")]


def _open_again(uri: str, version: int | str | None) -> Any:
    """Open a table whose first commit may have come between looking for it and looking why it is not there."""
    import lance

    try:
        return lance.dataset(uri, version=version)
    except ValueError:
        if "://" not in uri and Path(uri, "_transactions").is_dir():
            raise DamageError(f"{uri}: was committed, and no version of it is left that can be read.", uri) from None
        raise StoreError(f"{uri}: is not a readable table.", uri) from None


def _require_format(uri: str, metadata: Mapping[bytes, bytes]) -> None:
    # Schema metadata, not a file next to the table: it travels with every version and every copy.
    found = metadata.get(b"stella.format")
    if found is None:
        raise StoreError(f"{uri}: is a Lance table of another program: it has no `stella.format`.", uri)
    if int(found) > FORMAT:
        raise FormatError(f"{uri}: has format {int(found)}, and this version of the package reads up to {FORMAT}.", uri)
