"""Which homes use a table of a store that several may share: a collector cannot look into another home.

A home whose vectors lie in its own folder has the store for itself, and notes nothing.
"""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Collection

from stella_assets.storage.database import table_names
from stella_assets.storage.files import write_atomically
from stella_assets.storage.locks import file_lock
from stella_assets.storage.notes import has_note, note_names, read_note, remove_note, write_note
from stella_assets.storage.workspace import Workspace

PREFIX, SUFFIX = "home-", ".json"


def note_home(workspace: Workspace, table: str) -> None:
    """Note with a table, which need not be there yet, that this home uses it.

    Raises:
        StoreError: The store cannot be written.
    """
    if workspace.has_own_store:
        return
    name = f"{PREFIX}{_own(workspace)}{SUFFIX}"
    if not has_note(workspace, table, name):
        write_note(workspace, table, name, json.dumps({"host": socket.gethostname(), "folder": str(workspace.root)}))


def other_homes(workspace: Workspace, table: str, gone: Collection[str] = ()) -> list[str]:
    """Identifiers of the other homes that use a table.

    Args:
        workspace: This home.
        table: The table.
        gone: Homes that do not count any more.

    Raises:
        StoreError: The store cannot be read.
    """
    if workspace.has_own_store:
        return []
    # That there is a note is all that counts: one whose bytes were damaged protects as well.
    names = [name for name in note_names(workspace, table) if name.startswith(PREFIX) and name.endswith(SUFFIX)]
    homes = {name.removeprefix(PREFIX).removesuffix(SUFFIX) for name in names}
    return sorted(homes - {_own(workspace), *gone})


def homes_of(workspace: Workspace) -> dict[str, str]:
    """Other homes that use tables of the store, and where they are: machine and folder.

    Raises:
        StoreError: The store cannot be read.
    """
    if workspace.has_own_store:
        return {}
    noted = {home: name for name in table_names(workspace) for home in other_homes(workspace, name)}
    return {home: _place_of(workspace, name, home) for home, name in sorted(noted.items())}


def forget_home(workspace: Workspace, table: str, home: str) -> None:
    """Remove the note that a home, which is gone, used a table.

    Raises:
        StoreError: The store cannot be written.
    """
    remove_note(workspace, table, f"{PREFIX}{home}{SUFFIX}")


def _place_of(workspace: Workspace, table: str, home: str) -> str:
    """Where a home is, as it noted it with a table: machine and folder."""
    try:
        noted = json.loads(read_note(workspace, table, f"{PREFIX}{home}{SUFFIX}") or "{}")
        return f"{noted['host']}:{noted['folder']}"
    except (ValueError, KeyError, TypeError):
        return "a place that cannot be read"


def _own(workspace: Workspace) -> str:
    path = workspace.root / "home_id"
    with file_lock(workspace, "home_id"):
        if not path.is_file():
            write_atomically(path, uuid.uuid4().hex[:12])
        return path.read_text(encoding="utf-8").strip()
