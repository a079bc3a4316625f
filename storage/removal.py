"""Removing folders so that a kill leaves them whole or gone: they are moved away in one step, then deleted."""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from stella_assets.storage.files import is_left_over
from stella_assets.storage.workspace import Workspace

TRASH = ".trash"
COLLECTORS = "garbage"
"""Name of the lock that collectors of garbage hold."""


def remove_folder(folder: Path, root: Path) -> None:
    """Remove a folder; nobody sees a part of it.

    Args:
        folder: What to remove; it may be gone already.
        root: A folder above it on the same disk; its `.trash` takes what is being deleted.
    """
    moved = root / TRASH / f"{uuid.uuid4().hex}-{folder.name}"
    # Another process may remove the trash at any moment, or the folder.
    while folder.exists():
        with suppress(FileExistsError):  # there, and gone before `mkdir` looked whether it is a folder
            moved.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            folder.rename(moved)
    shutil.rmtree(moved, ignore_errors=True)


def set_aside(folder: Path, root: Path) -> Path:
    """Move a damaged folder to `.damaged` of `root`, where a person can look at it, and nothing reads or deletes it."""
    aside = root / ".damaged" / f"{uuid.uuid4().hex[:8]}-{folder.name}"
    aside.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(aside)
    return aside


def finish_removals(workspace: Workspace) -> None:
    """Delete what killed removals left behind, and temporary files whose writer is gone.

    Args:
        workspace: Where. In artefacts nothing is looked for: drafts go as a whole.
    """
    skipped = {workspace.artefacts, workspace.environments}
    for root in {workspace.root, *([] if workspace.remote else [Path(workspace.vectors)])}:
        shutil.rmtree(root / TRASH, ignore_errors=True)
        for place, folders, files in os.walk(root):
            for path in (Path(place, name) for name in (*folders, *files)):
                if is_left_over(path):
                    with suppress(OSError):  # another process was faster, or it belongs to somebody else
                        path.unlink()
            folders[:] = [name for name in folders if Path(place, name) not in skipped]
