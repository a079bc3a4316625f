"""Small files that travel with a table: what its rows are compared with before more are written."""

from __future__ import annotations

import tempfile
from pathlib import Path

from stella_assets.storage.database import NOTES, table_uri
from stella_assets.storage.lance_errors import translate_lance_errors
from stella_assets.storage.units import session
from stella_assets.storage.workspace import Workspace


def write_note(workspace: Workspace, table: str, name: str, content: str) -> None:
    """Keep a text in the folder of a table, which need not be there yet; it replaces one of the same name.

    Args:
        workspace: Where the store is.
        table: The table.
        name: File name of the note.
        content: Kept as UTF-8.

    Raises:
        StoreError: The place cannot be written.
    """
    uri = table_uri(workspace, table)
    with translate_lance_errors(uri), tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        # Through Lance's session, so that credentials and addresses are those of the table itself.
        session(uri).upload_file(file.name, f"{NOTES}/{name}")


def read_note(workspace: Workspace, table: str, name: str) -> str | None:
    """The text that was kept with a table under a name; None if there is none.

    Raises:
        StoreError: The place cannot be read.
    """
    if not has_note(workspace, table, name):
        return None
    uri = table_uri(workspace, table)
    with translate_lance_errors(uri):
        files = session(uri)
        with tempfile.NamedTemporaryFile("rb") as file:
            files.download_file(f"{NOTES}/{name}", file.name)
            return Path(file.name).read_text(encoding="utf-8")


def has_note(workspace: Workspace, table: str, name: str) -> bool:
    """Whether a text was kept with a table under a name; its content is not read.

    Raises:
        StoreError: The place cannot be read.
    """
    uri = table_uri(workspace, table)
    if not workspace.remote:
        return Path(uri, NOTES, name).is_file()
    with translate_lance_errors(uri):
        return bool(session(uri).contains(f"{NOTES}/{name}"))


def note_names(workspace: Workspace, table: str) -> list[str]:
    """The names of the texts that were kept with a table.

    Raises:
        StoreError: The place cannot be read.
    """
    uri = table_uri(workspace, table)
    if not workspace.remote:
        return sorted(path.name for path in Path(uri, NOTES).glob("*"))
    with translate_lance_errors(uri):
        return sorted(path.rpartition("/")[2] for path in session(uri).list(NOTES))


def remove_note(workspace: Workspace, table: str, name: str) -> None:
    """Remove the text that was kept with a table under a name, if there is one.

    Raises:
        StoreError: The place cannot be written.
    """
    if has_note(workspace, table, name):
        uri = table_uri(workspace, table)
        with translate_lance_errors(uri):
            session(uri).delete_file(f"{NOTES}/{name}")
