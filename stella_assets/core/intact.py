"""Whether an artefact is as it was made. What is damaged is named, and never used."""

from __future__ import annotations

from pathlib import Path

from stella_assets.core.errors import UserError
from stella_assets.core.manifest import REMEDY, Manifest, ManifestError
from stella_assets.core.step import Artefact
from stella_assets.storage.artefacts import MANIFEST
from stella_assets.storage.checked import CheckedFiles
from stella_assets.storage.files import below, resolved
from stella_assets.storage.workspace import Workspace

KIND = "artefacts"
"""Of the groups of files that are remembered."""


class DamagedArtefactError(UserError):
    """Files of an artefact are missing, or are not those that were written."""


def open_intact(workspace: Workspace, folder: Path, *, thorough: bool = False) -> Artefact:
    """The artefact in a folder, after its files were compared with the digests in its manifest.

    Call it before an artefact is read without a `Runner`, which does the same: for what is served, promoted, or
    continued from.

    Args:
        workspace: Remembers which files were read and have not changed since; those are not read again.
        folder: Of the artefact.
        thorough: Read every file.

    Raises:
        DamagedArtefactError: Its manifest or a file of it is not as it was made; the message names each.
    """
    name = _name(workspace, folder)
    # Also through a link, e.g. of a recipe; paths are given as the store gives them.
    folder = workspace.artefacts / name
    try:
        artefact = Artefact.open(name.rpartition("/")[0], folder)
    except ManifestError as error:
        raise DamagedArtefactError(error.message, error.remedy) from None
    identity = artefact.manifest.identity
    # Folders that changed places are whole, and each would be used for the other.
    if name != f"{identity.asset}/{identity.key}":
        raise DamagedArtefactError(f"{folder}: is the artefact {identity.asset}/{identity.key}.", REMEDY)
    wrong = CheckedFiles(workspace, f"{KIND}/{name}", folder).wrong(artefact.manifest.files, thorough=thorough)
    reasons = [*map(str, wrong), *(f"{path} is not a part of it" for path in _foreign_files(artefact))]
    if reasons:
        raise DamagedArtefactError(f"{'; '.join(reasons)}.", REMEDY)
    return artefact


def note_files(workspace: Workspace, folder: Path, manifest: Manifest) -> None:
    """Remember that the files of an artefact were just written and read."""
    CheckedFiles(workspace, f"{KIND}/{_name(workspace, folder)}", folder).note(manifest.files)


def _foreign_files(artefact: Artefact) -> list[Path]:
    """Files that somebody put into the folder: libraries read some of them if they are there, e.g. tokenizers."""
    manifest = artefact.manifest
    own = {MANIFEST, *manifest.files, *manifest.unhashed_files}
    inside = {path: path.relative_to(artefact.folder) for path in below(artefact.folder)}
    # Hidden files are of file managers and caches; code of a model is compiled next to it.
    shown = (path for path, name in inside.items() if not any(p.startswith((".", "__pycache__")) for p in name.parts))
    return sorted(path for path in shown if inside[path].as_posix() not in own and not path.is_dir())


def _name(workspace: Workspace, folder: Path) -> str:
    found, artefacts = resolved(folder), resolved(workspace.artefacts)
    if not found.is_relative_to(artefacts):
        raise DamagedArtefactError(f"{folder}: leads to {found}, outside of {workspace.artefacts}.", REMEDY)
    return found.relative_to(artefacts).as_posix()
