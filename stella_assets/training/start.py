"""What a student begins with: the base model, or the weights of the active release."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from stella_assets.core.errors import UserError
from stella_assets.core.manifest import Manifest
from storage.artefacts import MANIFEST
from storage.files import write_atomically
from storage.workspace import Workspace


class StartError(UserError):
    """The weights that a recipe continues from no longer exist."""


@dataclass(frozen=True)
class Start:
    """A stage whose encoder the first stage continues with; heads are new, as texts and teachers change.

    Attributes:
        asset: The stage.
        key: Of its artefact.
        digest: Of it.
    """

    asset: str
    key: str
    digest: str

    def path(self, workspace: Workspace) -> Path:
        """Folder of the stage, whether it still exists or not."""
        return workspace.artefacts / self.asset / self.key


def read_start(workspace: Workspace, recipe: str) -> Start | None:
    """What the recipe continues from; None for the base model.

    Args:
        workspace: With the record.
        recipe: Its name.
    """
    path = _record(workspace, recipe)
    return Start(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def start_folder(workspace: Workspace, recipe: str) -> Path | None:
    """Folder of the stage that the recipe continues from; None for the base model.

    Args:
        workspace: With the record and the artefacts.
        recipe: Its name.

    Raises:
        StartError: The stage no longer exists. Only this recipe's record has to go: others share the folder.
    """
    start = read_start(workspace, recipe)
    if start is None:
        return None
    folder = start.path(workspace)
    # By digest, too: the key alone would accept an artefact that was built again with other bits.
    if not (folder / MANIFEST).is_file() or Manifest.read(folder / MANIFEST).digest != start.digest:
        raise StartError(
            f"{folder}: recipe {recipe!r} continues from these weights, and they no longer exist.",
            f"Remove {_record(workspace, recipe)} to begin with the base model again.",
        )
    return folder


def set_start(workspace: Workspace, recipe: str, start: Start) -> None:
    """Continue from a stage from now on.

    Args:
        workspace: Where the record is kept.
        recipe: Its name.
        start: The stage.
    """
    # Atomically: a run that starts at this moment reads the old record or the new one, never half of it.
    write_atomically(_record(workspace, recipe), json.dumps(asdict(start), indent=1) + "\n")


def _record(workspace: Workspace, recipe: str) -> Path:
    return workspace.starts / f"{recipe}.json"
