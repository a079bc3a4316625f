"""Releases by name: what was promoted, when, and which one people are served now.

`releases/<recipe>/<name>` links to a release's artefact and `<name>.json` says what it is. `releases/<recipe>/current`
links to one of the names; changing it is one rename, so a reader sees the old release or the new one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage.artefacts import MANIFEST, write_atomically
from storage.locks import file_lock
from storage.workspace import Workspace

CURRENT = "current"
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


class ReleaseError(ValueError):
    """A release that cannot be promoted, shown or gone back to."""


class Releases:
    """The releases of a recipe."""

    def __init__(self, workspace: Workspace, recipe: str) -> None:
        self._workspace = workspace
        self._recipe = recipe
        self._folder = workspace.releases / recipe

    def names(self) -> list[str]:
        """All that were promoted, the newest first."""
        records = [self.record(path.stem) for path in self._folder.glob("*.json")]
        return [record["name"] for record in sorted(records, key=lambda record: record["number"], reverse=True)]

    def current(self) -> str | None:
        """The one that is served now."""
        link = self._folder / CURRENT
        return link.readlink().name if link.is_symlink() else None

    def record(self, name: str) -> dict[str, Any]:
        """What was noted when it was promoted.

        Raises:
            ReleaseError: There is no such release.
        """
        path = self._folder / f"{name}.json"
        if not path.is_file():
            known = ", ".join(self.names()) or "none yet"
            raise ReleaseError(f"recipe {self._recipe!r}: has no release {name!r}; it has {known}.")
        return json.loads(path.read_text(encoding="utf-8"))

    def folder(self, name: str) -> Path:
        """The model folder of a release.

        Raises:
            ReleaseError: There is no such release, or its files are gone.
        """
        self.record(name)
        folder = (self._folder / name).resolve()
        if not (folder / MANIFEST).is_file():
            raise ReleaseError(
                f"{folder}: the files of release {name!r} are gone. Run `stella release rollback {self._recipe}`, or "
                f"remove {self._folder / CURRENT} to go on without a release to compare with."
            )
        return folder

    def promote(self, artefact: Path, name: str | None, about: Mapping[str, Any]) -> dict[str, Any]:
        """Give a release artefact a name, and serve it from now on.

        Args:
            artefact: Its folder.
            name: A new one; made of the date and the artefact's key when left out.
            about: What to note beside it, as plain values.

        Raises:
            ReleaseError: The name is taken by another artefact, or is none.
        """
        now = datetime.now(UTC)
        name = name or f"{now:%Y-%m-%d}-{artefact.name[:8]}"
        if not NAME.fullmatch(name) or name == CURRENT:
            raise ReleaseError(f"release name {name!r}: use letters, digits, `.`, `-` and `_`, and not `{CURRENT}`.")
        with file_lock(self._workspace, f"releases-{self._recipe}"):
            self._folder.mkdir(parents=True, exist_ok=True)
            if (self._folder / f"{name}.json").is_file():
                if self.record(name)["key"] != artefact.name:
                    raise ReleaseError(
                        f"release {name!r}: exists already, made on {self.record(name)['promoted_at']} of other "
                        "inputs. Choose another name."
                    )
                record = self.record(name)
            else:
                record = {
                    "name": name,
                    "number": 1 + max((self.record(each)["number"] for each in self.names()), default=0),
                    "recipe": self._recipe,
                    "key": artefact.name,
                    "promoted_at": now.isoformat(timespec="seconds"),
                    "previous": self.current(),
                    **about,
                }
                _link(self._folder / name, os.path.relpath(artefact, self._folder))
                write_atomically(self._folder / f"{name}.json", json.dumps(record, indent=1) + "\n")
            _link(self._folder / CURRENT, name)
        return record

    def forget(self, name: str) -> None:
        """Let a release go that is not served; its artefact may stay for others."""
        with file_lock(self._workspace, f"releases-{self._recipe}"):
            if name == self.current():
                raise ReleaseError(f"release {name!r}: is served now. Promote another one first.")
            (self._folder / f"{name}.json").unlink(missing_ok=True)
            (self._folder / name).unlink(missing_ok=True)

    def roll_back(self) -> tuple[str, str]:
        """Serve again what was served before; gives the names of the one that goes and the one that comes.

        Raises:
            ReleaseError: There is nothing to go back to, or its files are gone.
        """
        with file_lock(self._workspace, f"releases-{self._recipe}"):
            current = self.current()
            previous = self.record(current)["previous"] if current else None
            if current is None or previous is None:
                shown = f"{current!r} is the first release" if current else "nothing was promoted yet"
                raise ReleaseError(f"recipe {self._recipe!r}: {shown}, so there is nothing to go back to.")
            self.folder(previous)
            _link(self._folder / CURRENT, previous)
        return current, previous


def _link(link: Path, target: str) -> None:
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)
