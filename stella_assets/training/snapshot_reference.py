"""Naming a snapshot, so that another process can open it."""

from __future__ import annotations

from dataclasses import dataclass

from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.snapshot import Snapshot


@dataclass(frozen=True)
class SnapshotReference:
    """Names a snapshot. Other processes get this and not an open table, which must not be forked.

    Attributes:
        workspace: Where it is kept.
        recipe: Whose table it is a version of.
        tag: Of the version.
    """

    workspace: Workspace
    recipe: str
    tag: str

    def open(self) -> Snapshot:
        """Open the snapshot, in the process that reads it.

        Raises:
            MissingSnapshotError: There is no such snapshot.
        """
        return Snapshot.open(self.workspace, self.recipe, self.tag)
