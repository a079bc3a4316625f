"""What a student begins with: the base model, or the weights of what was released before."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from stella_assets.manifest import Manifest
from storage.artefacts import MANIFEST, finished, write_atomically
from storage.home import Home


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

    def folder(self, home: Home) -> Path:
        """Where the stage lies.

        Raises:
            StartError: It is gone.
        """
        folder = home.artefacts / self.asset / self.key
        if not (folder / MANIFEST).is_file() or Manifest.read(folder / MANIFEST).digest != self.digest:
            raise StartError(
                f"{folder}: the recipe continues from these weights, and they are gone. Remove {home.starts} to begin "
                "with the base model again."
            )
        return folder


def find_start(home: Home, digest: str) -> Start | None:
    """The stage of this data version, in any recipe; None where it is gone."""
    for folder in finished(home, "stage_*"):
        if Manifest.read(folder / MANIFEST).digest == digest:
            return Start(folder.parent.name, folder.name, digest)
    return None


def read_start(home: Home, recipe: str) -> Start | None:
    """What the recipe continues from; None for the base model."""
    path = home.starts / f"{recipe}.json"
    return Start(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def set_start(home: Home, recipe: str, start: Start) -> None:
    """Continue from a stage from now on."""
    write_atomically(home.starts / f"{recipe}.json", json.dumps(asdict(start), indent=1) + "\n")
