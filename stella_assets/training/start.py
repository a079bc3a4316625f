"""What a student begins with: the base model, or the weights of the active release."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from stella_assets.core.errors import UserError
from stella_assets.core.intact import DamagedArtefactError, open_intact
from stella_assets.storage.artefacts import MANIFEST
from stella_assets.storage.files import write_atomically
from stella_assets.storage.sealed import seal, unseal
from stella_assets.storage.workspace import Workspace


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

    Raises:
        StartError: The record is damaged.
    """
    path = _record(workspace, recipe)
    if not os.path.lexists(path):
        return None
    try:
        return Start(**unseal(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError) as error:
        raise StartError(
            f"{path}: is damaged ({type(error).__name__}: {error}).", "Remove it to begin with the base model again."
        ) from None


def start_folder(workspace: Workspace, recipe: str) -> Path | None:
    """Folder of the stage that the recipe continues from; None for the base model.

    Args:
        workspace: With the record and the artefacts.
        recipe: Its name.

    Raises:
        StartError: The stage no longer exists, or is damaged. Only this recipe's record has to go: others share the
            folder.
    """
    start = read_start(workspace, recipe)
    if start is None:
        return None
    folder = start.path(workspace)
    # By digest, too: the key alone would accept an artefact that was built again with other bits.
    remedy = f"Remove {_record(workspace, recipe)} to begin with the base model again."
    try:
        whole = (folder / MANIFEST).is_file() and open_intact(workspace, folder).digest == start.digest
    except DamagedArtefactError as damaged:
        raise StartError(f"recipe {recipe!r} continues from damaged weights: {damaged.message}", remedy) from None
    if not whole:
        raise StartError(f"{folder}: recipe {recipe!r} continues from these weights, and they no longer exist.", remedy)
    return folder


def set_start(workspace: Workspace, recipe: str, start: Start) -> None:
    """Continue from a stage from now on.

    Args:
        workspace: Where the record is kept.
        recipe: Its name.
        start: The stage.
    """
    # Atomically: a run that starts at this moment reads the old record or the new one, never half of it.
    write_atomically(_record(workspace, recipe), json.dumps(seal(asdict(start)), indent=1) + "\n")


def _record(workspace: Workspace, recipe: str) -> Path:
    return workspace.starts / f"{recipe}.json"
