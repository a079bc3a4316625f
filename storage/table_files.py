"""Whether the files of a table's version are as they were written: data, deletions, manifest and tag.

A run asks before it reads a version, and usually learns it from sizes and times alone, without Lance. It asks about
local tables only: an object store keeps checksums of its own, and `verify_table` reads every byte of both.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from stella_assets.storage.checked import CheckedFiles
from stella_assets.storage.database import open_table, table_uri
from stella_assets.storage.errors import DamageError, StoreError
from stella_assets.storage.files import DIGEST_CHARS
from stella_assets.storage.seals import VERSIONS, UnitDigest, digest_path, manifest_path, tag_path, version_digest
from stella_assets.storage.units import fragment_files
from stella_assets.storage.workspace import Workspace


def wrong_files(workspace: Workspace, name: str, tag: str | None = None) -> dict[str, str]:
    """Files of a version that are not as they were written, by path in the table's folder, with what is wrong.

    Args:
        workspace: Where the store is.
        name: The table.
        tag: Of the version; the newest one when left out.

    Returns:
        Empty where all is well, and where there is no such table or tag. A version that cannot be opened is named by
        its manifest.
    """
    folder = Path(table_uri(workspace, name))
    if workspace.remote or (tag is not None and not (folder / tag_path(tag)).is_file()):
        return {}
    manifest = manifest_path(folder, tag)
    if manifest is None:
        return {tag_path(tag): "cannot be read"} if tag else _lost_versions(workspace, name)
    memory = CheckedFiles(workspace, f"tables/{name}@{tag or ''}", folder)
    named = [manifest, *([tag_path(tag)] if tag else [])]
    # Known from the last time, and not one of them has changed since: Lance need not be loaded.
    if memory.unchanged(named):
        return {}
    digests = {path: version_digest(folder, path) for path in named}
    # Before it is opened: a changed manifest may open, and name other files.
    wrong = memory.wrong({path: digest or "" for path, digest in digests.items()})
    missing = []
    if not wrong:
        try:
            dataset = open_table(workspace, name, tag)
        except StoreError as error:
            return {manifest: f"cannot be opened: {error}"}
        files = {path for fragment in dataset.get_fragments() for path in fragment_files(fragment)} if dataset else ()
        digests |= {path: _written_digest(folder, path) for path in files}
        missing = [path for path, digest in digests.items() if not digest]
        wrong = memory.wrong({path: digest for path, digest in digests.items() if digest})
    if wrong or missing:
        # Else the next call would find every file unchanged since this one.
        memory.forget()
    else:
        # Files of earlier versions may go at any time; Lance would then be loaded by every call.
        memory.keep_only(digests)
    named_wrong = {each.path.relative_to(folder).as_posix(): str(each) for each in wrong}
    return {path: f"{folder / path} has no digest" for path in missing} | named_wrong


def require_whole(workspace: Workspace, name: str, tag: str | None = None) -> None:
    """Make sure that the files of a version are as they were written.

    Raises:
        DamageError: They are not.
    """
    if wrong := wrong_files(workspace, name, tag):
        more = f", and {len(wrong) - 1} more files" if len(wrong) > 1 else ""
        raise DamageError(f"{name}: {next(iter(wrong.values()))}{more}.", table_uri(workspace, name))


def _lost_versions(workspace: Workspace, name: str) -> dict[str, str]:
    try:
        open_table(workspace, name)
    except DamageError as error:
        return {VERSIONS: str(error)}
    return {}


def _written_digest(folder: Path, path: str) -> str | None:
    with suppress(OSError, ValueError, TypeError):
        return UnitDigest(**json.loads((folder / digest_path(path)).read_bytes())).sha256[:DIGEST_CHARS]
    return None
