"""Artefact folders: found by key, built in a draft, and moved into place in one step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase
from pathlib import Path

from stella_assets.storage.files import apply_umask, link_atomically, sync
from stella_assets.storage.locks import file_lock, try_lock
from stella_assets.storage.removal import remove_folder, set_aside
from stella_assets.storage.workspace import Workspace

MANIFEST = "manifest.json"
DRAFT, SCRATCH = ".draft", ".scratch"


class ArtefactStore:
    """Artefacts by (asset, key). An artefact exists when its manifest does; a half-built one is only a draft.

    Args:
        workspace: Where artefacts are kept, in `artefacts/<asset>/<key>/`.

    Example:
        >>> store = ArtefactStore(workspace)
        >>> with store.lock("corpus", key, on_wait=lambda: None):
        ...     draft = store.draft("corpus", key)
        ...     write_atomically(draft / MANIFEST, manifest)
        ...     folder = store.commit(draft, "corpus", key)
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def path(self, asset: str, key: str) -> Path:
        """Where the artefact lies or will lie."""
        return self.workspace.artefacts / asset / key

    def exists(self, asset: str, key: str) -> bool:
        """Whether the artefact is complete."""
        return (self.path(asset, key) / MANIFEST).is_file()

    def lock(self, asset: str, key: str, on_wait: Callable[[], None]) -> AbstractContextManager[None]:
        """Lock the artefact for one builder; a second one waits, and `on_wait` is told so first."""
        return file_lock(self.workspace, _lock_name(asset, key), on_wait)

    def draft(self, asset: str, key: str) -> Path:
        """An empty folder to build in; what an interrupted build left there is removed."""
        folder = self.path(asset, f"{key}{DRAFT}")
        # Files of an interrupted build may be cut short, and nothing tells which: nothing of it is used.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def scratch(self, asset: str, key: str) -> Path:
        """A folder for checkpoints and the like: it survives an interrupted build, until `remove_scratch`."""
        folder = self.path(asset, f"{key}{SCRATCH}")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def has_scratch(self, asset: str, key: str) -> bool:
        """Whether a build left something for the case of an interruption."""
        return self.path(asset, f"{key}{SCRATCH}").exists()

    def remove_scratch(self, asset: str, key: str) -> None:
        """Remove what a build left for the case of an interruption, after its artefact is durable and linked."""
        shutil.rmtree(self.path(asset, f"{key}{SCRATCH}"), ignore_errors=True)

    def remove(self, asset: str, key: str, is_needed: Callable[[], bool]) -> None:
        """Remove an artefact, in one step for those who look for it, unless somebody is making or linking it now.

        Args:
            asset: What the artefact is stored under.
            key: Of the artefact.
            is_needed: Asked under the artefact's lock: a run may have linked it since the collector looked.
        """
        with try_lock(self.workspace, _lock_name(asset, key)) as held:
            if held and not is_needed():
                remove_folder(self.path(asset, key), self.workspace.root)

    def commit(self, draft: Path, asset: str, key: str) -> Path:
        """Move a draft into place. The draft holds its manifest already, so the rename is the commit.

        A damaged artefact that is being made again is kept until then.

        Args:
            draft: The folder that `draft` gave.
            asset: What the artefact is stored under.
            key: Of the artefact.

        Returns:
            The artefact's folder.
        """
        final = self.path(asset, key)
        apply_umask(draft)
        # After a power failure, a durable rename must not lead to files whose bytes were never written.
        for file in draft.rglob("*"):
            if file.is_file():
                sync(file)
        # `rename` replaces only an empty folder. A kill in between leaves a damaged artefact or none; it is made again.
        if final.exists():
            remove_folder(final, self.workspace.root)
        draft.rename(final)
        sync(final.parent)
        return final

    def point(self, recipe: str, name: str, asset: str, key: str) -> None:
        """Make `<recipe>/<name>` a link to an artefact, in one atomic step.

        Args:
            recipe: The namespace of the link.
            name: Of the link.
            asset: What the artefact is stored under; several names may share it.
            key: Of the artefact.
        """
        link = self.workspace.current(recipe, name)
        # A relative target stays valid when the whole workspace is moved or mounted elsewhere.
        target = os.path.relpath(self.path(asset, key), link.parent)
        if link.is_dir() and not link.is_symlink():  # the workspace was copied through its links
            set_aside(link, self.workspace.root)
        if not (link.is_symlink() and str(link.readlink()) == target):
            link_atomically(link, target)

    def prune_links(self, recipe: str, assets: Collection[str]) -> None:
        """Remove the recipe's links to other assets than these, e.g. of a step that it no longer has."""
        root = self.workspace.root / recipe
        for link in sorted(root.rglob("*")):
            if link.is_symlink() and link.relative_to(root).as_posix() not in assets:
                link.unlink()


def _lock_name(asset: str, key: str) -> str:
    return f"{asset}-{key}"


def finished(workspace: Workspace, assets: str = "**") -> list[Path]:
    """Folders of the artefacts that are complete, of the assets that a glob describes."""
    found = []
    # Not `Path.glob`, which fails where another process removes a folder at the same time.
    for place, names, files in os.walk(workspace.artefacts):
        # A draft has its manifest just before the rename, so the manifest alone does not tell.
        names[:] = [name for name in names if not name.endswith((DRAFT, SCRATCH))]
        if MANIFEST in files:
            names.clear()
            asset = Path(place).parent.relative_to(workspace.artefacts)
            if assets == "**" or _matches(asset, assets):
                found.append(Path(place))
    return sorted(found)


def _matches(asset: Path, pattern: str) -> bool:
    """Whether each part of an asset's name matches that part of a glob."""
    parts = pattern.split("/")
    return len(parts) == len(asset.parts) and all(map(fnmatchcase, asset.parts, parts))


def linked(workspace: Workspace, assets: str) -> list[Path]:
    """Links of all recipes to the artefacts that they have now, `<recipe>/<asset>`, of the assets of a glob."""
    # A link is no folder for `**` of `glob`; names of assets have one part, or the group's before it.
    globs = ("*", "*/*") if assets == "**" else (assets,)
    links = [link for each in globs for link in workspace.root.glob(f"[!.]*/{each}")]
    return sorted(link for link in links if not link.is_relative_to(workspace.artefacts))
