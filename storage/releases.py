"""Releases by name: what was promoted, when, and which one is active.

`releases/<recipe>/<name>` links to a release's artefact and `<name>.json` says what it is. `releases/<recipe>/current`
links to the name of the active one; changing it is one rename, so a reader sees the old release or the new one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stella_assets.storage.artefacts import MANIFEST
from stella_assets.storage.errors import MissingReleaseError, NoReleaseError, ReleaseError
from stella_assets.storage.files import link_atomically, resolved, write_atomically
from stella_assets.storage.locks import file_lock
from stella_assets.storage.sealed import seal, unseal
from stella_assets.storage.workspace import Workspace

ACTIVE_LINK = "current"
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


class Releases:
    """The releases of a recipe.

    Args:
        workspace: Where state is kept.
        recipe: Name of the recipe.

    Example:
        >>> releases = Releases(workspace, "demo")
        >>> releases.promote(artefact.folder, "v2", {"score": 0.71})
        >>> releases.active()
        'v2'
        >>> releases.roll_back()
        ('v2', 'v1')
    """

    def __init__(self, workspace: Workspace, recipe: str) -> None:
        self._workspace = workspace
        self._recipe = recipe
        self._folder = workspace.releases / recipe

    def names(self) -> list[str]:
        """All names that were promoted, the newest first."""
        records = [self.record(path.stem) for path in self._folder.glob("*.json")]
        # By number, not by time: two promotions within a second have equal times.
        return [record["name"] for record in sorted(records, key=lambda record: record["number"], reverse=True)]

    def active(self) -> str | None:
        """The name of the active release; None before the first promotion.

        Raises:
            ReleaseError: The active link is not one to a release of this recipe. People read through it, so it must
                not lead elsewhere.
        """
        link = self._folder / ACTIVE_LINK
        if not os.path.lexists(link):
            return None
        target = str(link.readlink()) if link.is_symlink() else ""
        if not NAME.fullmatch(target) or not os.path.lexists(self._folder / f"{target}.json"):
            leads = f"leads to {target!r}" if target else "is not a link"
            raise ReleaseError(
                f"{link}: {leads}, and not to a release of recipe {self._recipe!r}. Remove it, then promote a release "
                "again.",
                link,
            )
        return target

    def record(self, name: str) -> dict[str, Any]:
        """What was recorded when it was promoted.

        Raises:
            ReleaseError: There is no such release.
        """
        path = self._folder / f"{name}.json"
        # Not `is_file`: a link that leads nowhere is damage, and must not count as a release that was never there.
        if not os.path.lexists(path):
            known = ", ".join(self.names()) or "none yet"
            raise NoReleaseError(f"recipe {self._recipe!r}: has no release {name!r}; it has {known}.", path)
        try:
            record = unseal(json.loads(path.read_text(encoding="utf-8")))
            if record["name"] == name and isinstance(record["number"], int) and record["key"]:
                return record
            reason = f"it is the record of {record['name']!r}"
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
        raise ReleaseError(f"{path}: is damaged ({reason}). Remove it, then promote the release again.", path)

    def folder(self, name: str) -> Path:
        """The model folder of a release.

        Raises:
            ReleaseError: There is no such release, or its files are gone.
        """
        key, folder = self.record(name)["key"], resolved(self._folder / name)
        # The link and the record say the same twice, so a change to one of them shows.
        inside = folder.is_relative_to(resolved(self._workspace.artefacts))
        if folder.name != key or not inside or not (folder / MANIFEST).is_file():
            raise MissingReleaseError(f"{folder}: the files of release {name!r} are gone.", folder)
        return folder

    def promote(self, artefact: Path, name: str | None, about: Mapping[str, Any]) -> dict[str, Any]:
        """Give an artefact a name and make it the active release.

        Args:
            artefact: Its folder.
            name: A new one; made of the date and the artefact's key when left out.
            about: What to record with it, as plain values.

        Returns:
            The release's record.

        Raises:
            ReleaseError: The name is taken by another artefact, or is not a valid name.
        """
        now = datetime.now(UTC)
        name = name or f"{now:%Y-%m-%d}-{artefact.name[:8]}"
        # The name becomes a file name: no separators, no leading dot, and not the name of the active link.
        if not NAME.fullmatch(name) or name == ACTIVE_LINK:
            raise ReleaseError(
                f"release name {name!r}: use letters, digits, `.`, `-` and `_`, and not `{ACTIVE_LINK}`."
            )
        with file_lock(self._workspace, f"releases-{self._recipe}"):
            self._folder.mkdir(parents=True, exist_ok=True)
            # Promoting the same artefact under its name again is not an error: a run that was killed here repeats it.
            if (self._folder / f"{name}.json").is_file():
                if self.record(name)["key"] != artefact.name:
                    raise ReleaseError(
                        f"release {name!r}: exists already, made on {self.record(name)['promoted_at']} of other "
                        "inputs. Choose another name."
                    )
                record = self.record(name)
                if (active := self.active()) not in (name, None):
                    # Active once more: going back leads to the release that it replaces now.
                    record = {**record, "previous": active}
                    self._write(record)
            else:
                record = {
                    "name": name,
                    "number": 1 + max((self.record(each)["number"] for each in self.names()), default=0),
                    "recipe": self._recipe,
                    "key": artefact.name,
                    "promoted_at": now.isoformat(timespec="seconds"),
                    "previous": self.active(),
                    **about,
                }
                # Link, record, then active link: after a kill at any point, every recorded name leads to files.
                link_atomically(self._folder / name, os.path.relpath(artefact, self._folder))
                self._write(record)
            link_atomically(self._folder / ACTIVE_LINK, name)
        return record

    def _write(self, record: dict[str, Any]) -> None:
        write_atomically(self._folder / f"{record['name']}.json", json.dumps(seal(record), indent=1) + "\n")

    def forget(self, name: str) -> None:
        """Remove the name of a release that is not active; its artefact may stay for others.

        Raises:
            ReleaseError: It is the active release.
        """
        with file_lock(self._workspace, f"releases-{self._recipe}"):
            if name == self.active():
                raise ReleaseError(f"release {name!r}: is the active one. Promote another one first.")
            # The record first: a name counts as promoted as long as it has one.
            (self._folder / f"{name}.json").unlink(missing_ok=True)
            (self._folder / name).unlink(missing_ok=True)

    def roll_back(self, check: Callable[[Path], object] = lambda _folder: None) -> tuple[str, str]:
        """Make the release active that was active before.

        Args:
            check: Raises unless the files in the folder of that release are whole.

        Returns:
            The name of the release that was active, and of the one that is now.

        Raises:
            ReleaseError: There is nothing to go back to, or its files are gone.
        """
        with file_lock(self._workspace, f"releases-{self._recipe}"):
            active = self.active()
            previous = self.record(active)["previous"] if active else None
            if active is None or previous is None:
                shown = f"{active!r} is the first release" if active else "nothing was promoted yet"
                raise NoReleaseError(f"recipe {self._recipe!r}: {shown}, so there is nothing to go back to.")
            # Raises if its files are gone: the active link must never lead to nothing.
            check(self.folder(previous))
            link_atomically(self._folder / ACTIVE_LINK, previous)
        return active, previous
