"""Artefact folders: found by key, built in a draft, and moved into place in one step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path

from storage.locks import file_lock
from storage.workspace import Workspace

MANIFEST = "manifest.json"


class ArtefactStore:
    """Artefacts by (asset, key). An artefact exists when its manifest does; a half-built one is only a draft."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def path(self, asset: str, key: str) -> Path:
        """Where the artefact lies or will lie."""
        return self.workspace.artefacts / asset / key

    def exists(self, asset: str, key: str) -> bool:
        """Whether the artefact is complete."""
        return (self.path(asset, key) / MANIFEST).is_file()

    def lock(self, asset: str, key: str, on_wait: Callable[[], None]) -> AbstractContextManager[None]:
        """Hold the artefact for one builder; a second one waits, and `on_wait` is told so first."""
        return file_lock(self.workspace, f"{asset}-{key}", on_wait)

    def draft(self, asset: str, key: str) -> Path:
        """An empty folder to build in; what an interrupted build left there is gone."""
        folder = self.path(asset, f"{key}.draft")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def scratch(self, asset: str, key: str) -> Path:
        """A folder for checkpoints and the like: it survives an interrupted build and goes with the commit."""
        folder = self.path(asset, f"{key}.scratch")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def commit(self, draft: Path, asset: str, key: str) -> Path:
        """Move a draft into place. The draft holds its manifest already, so the rename is the commit.

        A damaged artefact that is being made again is kept until then.
        """
        final = self.path(asset, key)
        for file in draft.rglob("*"):
            if file.is_file():
                sync(file)
        if final.exists():
            shutil.rmtree(final)
        draft.rename(final)
        sync(final.parent)
        shutil.rmtree(self.path(asset, f"{key}.scratch"), ignore_errors=True)
        return final

    def point(self, recipe: str, asset: str, key: str) -> None:
        """Make `<recipe>/<asset>` name this artefact, in one atomic step."""
        link = self.workspace.current(recipe, asset)
        target = os.path.relpath(self.path(asset, key), link.parent)
        if link.is_symlink() and str(link.readlink()) == target:
            return
        link.parent.mkdir(parents=True, exist_ok=True)
        fresh = link.with_name(f".{link.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target, target_is_directory=True)
        fresh.replace(link)

    def prune_links(self, recipe: str, assets: Collection[str]) -> None:
        """Remove the recipe's links to other assets: those of a teacher or a stage that it has no more."""
        root = self.workspace.root / recipe
        for link in sorted(root.rglob("*")):
            if link.is_symlink() and link.relative_to(root).as_posix() not in assets:
                link.unlink()


def finished(workspace: Workspace, assets: str = "**") -> list[Path]:
    """Folders of the artefacts that are complete, of the assets that a glob describes."""
    folders = (path.parent for path in workspace.artefacts.glob(f"{assets}/*/{MANIFEST}"))
    return sorted(folder for folder in folders if folder.suffix != ".draft")


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, text: str) -> None:
    """Write a small text file so that a reader sees the old content or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    sync(fresh)
    fresh.replace(path)
