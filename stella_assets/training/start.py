"""What a student begins with: the base model, or the weights of what was released before."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from storage.workspace import Workspace

from stella_assets.core.manifest import Manifest
from storage.artefacts import MANIFEST, finished, write_atomically


class StartError(ValueError):
    """The weights that a recipe continues from are gone."""


@dataclass(frozen=True)
class Start:
    """A stage whose encoder the first stage goes on with; heads are made anew, as texts and teachers change.

    Attributes:
        asset: The stage.
        key: Of its artefact.
        digest: Of it.
    """

    asset: str
    key: str
    digest: str

    def folder(self, workspace: Workspace) -> Path:
        """Where the stage lies.

        Raises:
            StartError: It is gone.
        """
        folder = workspace.artefacts / self.asset / self.key
        if not (folder / MANIFEST).is_file() or Manifest.read(folder / MANIFEST).digest != self.digest:
            raise StartError(
                f"{folder}: the recipe continues from these weights, and they are gone. Remove {workspace.starts} to begin "
                "with the base model again."
            )
        return folder


def find_start(workspace: Workspace, digest: str) -> Start | None:
    """The stage of this data version, in any recipe; None where it is gone."""
    for folder in finished(workspace, "stage_*"):
        if Manifest.read(folder / MANIFEST).digest == digest:
            return Start(folder.parent.name, folder.name, digest)
    return None


def read_start(workspace: Workspace, recipe: str) -> Start | None:
    """What the recipe continues from; None for the base model."""
    path = workspace.starts / f"{recipe}.json"
    return Start(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def set_start(workspace: Workspace, recipe: str, start: Start) -> None:
    """Continue from a stage from now on."""
    write_atomically(workspace.starts / f"{recipe}.json", json.dumps(asdict(start), indent=1) + "\n")
