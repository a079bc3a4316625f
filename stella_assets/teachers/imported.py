"""Which tables hold vectors that a person imported: nobody can compute those again, so no collector takes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from stella_assets.core.errors import UserError
from stella_assets.storage.database import table_names
from stella_assets.storage.locks import file_lock
from stella_assets.storage.notes import has_note, write_note
from stella_assets.storage.removal import COLLECTORS
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.tables import VECTORS, teacher_tables

NOTE = "imported.json"


@contextmanager
def importing(workspace: Workspace, fingerprint: str, teacher: str) -> Iterator[None]:
    """Import vectors into a table while no collector works; it is noted first that the table holds such vectors.

    Args:
        workspace: Where the store is.
        fingerprint: Of the table.
        teacher: Name of the teacher, for people.

    Raises:
        StoreError: The store cannot be written.
    """
    # Held to the end: a collector would take a table without rows, and the note with it.
    with file_lock(workspace, COLLECTORS):
        content = {"teacher": teacher, "imported_at": datetime.now(UTC).isoformat(timespec="seconds")}
        write_note(workspace, VECTORS + fingerprint, NOTE, json.dumps(content))
        yield


def imported_fingerprints(workspace: Workspace) -> list[str]:
    """Fingerprints of the tables that hold imported vectors.

    Raises:
        StoreError: The store cannot be read.
    """
    # That there is a note is all that counts: one whose bytes were damaged protects as well.
    names = teacher_tables(table_names(workspace))
    return [name.removeprefix(VECTORS) for name in names if has_note(workspace, name, NOTE)]


def require_imported(workspace: Workspace, fingerprint: str) -> None:
    """Make sure that a table holds imported vectors.

    Raises:
        UserError: It does not.
    """
    known = imported_fingerprints(workspace)
    if fingerprint not in known:
        raise UserError(
            f"--drop-imported {fingerprint}: no vectors were imported under this fingerprint.",
            f"Imported are those of {', '.join(known) or 'no teacher'}; `stella vectors list` shows fingerprints.",
        )
