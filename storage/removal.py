"""Removing folders so that a kill leaves them whole or gone: they are moved away in one step, then deleted."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from stella_assets.storage.files import below, is_left_over
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
    trash = root / TRASH
    trash.mkdir(parents=True, exist_ok=True)
    moved = trash / f"{uuid.uuid4().hex}-{folder.name}"
    try:
        folder.rename(moved)
    except FileNotFoundError:  # another process removed it first
        return
    shutil.rmtree(moved, ignore_errors=True)


def set_aside(folder: Path, root: Path) -> Path:
    """Move a damaged folder to `.damaged` of `root`, where a person can look at it, and nothing reads or deletes it."""
    aside = root / ".damaged" / f"{uuid.uuid4().hex[:8]}-{folder.name}"
    aside.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(aside)
    return aside


def finish_removals(workspace: Workspace) -> None:
    """Delete what killed removals left behind, and temporary files whose writer is gone."""
    for root in {workspace.root, *([] if workspace.remote else [Path(workspace.vectors)])}:
        shutil.rmtree(root / TRASH, ignore_errors=True)
    for folder in (workspace.root, workspace.artefacts, workspace.shards, workspace.checked, workspace.releases):
        # Of the root only its own files: the folders in it are looked at one by one.
        for path in folder.glob(".*.*") if folder == workspace.root else below(folder):
            if is_left_over(path):
                path.unlink(missing_ok=True)
