"""Whether everything in a workspace is as it was written, byte by byte: artefacts, shards, links, releases, records and
environments.

The vector store is verified by `stella_assets.teachers.audit`, which needs the teachers for a sample.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stella_assets.core.environments import FLAG, deviations
from stella_assets.core.errors import UserError
from stella_assets.core.intact import DamagedArtefactError, open_intact
from stella_assets.core.tables import RUNS
from stella_assets.storage.artefacts import DRAFT, MANIFEST, SCRATCH
from stella_assets.storage.checked import SealedFile
from stella_assets.storage.errors import StorageError
from stella_assets.storage.files import below
from stella_assets.storage.releases import ACTIVE_LINK, Releases
from stella_assets.storage.removal import remove_folder, set_aside
from stella_assets.storage.sealed import unseal
from stella_assets.storage.sqlite_files import damaged_databases
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.api.epochs import Epochs
from stella_assets.teachers.api.orders import Orders
from stella_assets.teachers.api.refused import FILE, RefusedTexts
from stella_assets.teachers.tables import COSTS
from stella_assets.training.start import read_start

LINES = ("redistillations", RUNS.folder, COSTS.folder)
"""Folders with JSON Lines."""
NEW_HISTORY = "move it away; the next run begins a new record of runs"
NEXT_RUN = "the next run that needs it makes it again"


@dataclass(frozen=True)
class Damaged:
    """Something that is not as it was written.

    Attributes:
        place: Where it is, as a path in the workspace.
        what: What is wrong, in words.
        remedy: What makes it whole again.
        mend: Takes it out of the way, so that it is made again; None where a person has to decide.
    """

    place: str
    what: str
    remedy: str
    mend: Callable[[], object] | None = None


def verify_files(workspace: Workspace, on_bytes: Callable[[int], object] = lambda _bytes: None) -> Iterator[Damaged]:
    """Read every file that a later step, a release or a command reads, except for the vector store.

    Args:
        workspace: What is verified; nothing is changed.
        on_bytes: Told how many bytes were read, for a progress bar.

    Yields:
        What is damaged.
    """
    yield from _artefacts(workspace, on_bytes)
    yield from _shards(workspace, on_bytes)
    yield from _links(workspace)
    yield from _releases(workspace)
    yield from _records(workspace)
    yield from _services(workspace)
    yield from _environments(workspace)
    yield from _history(workspace)


def _artefacts(workspace: Workspace, on_bytes: Callable[[int], object]) -> Iterator[Damaged]:
    root = workspace.artefacts
    for folder in sorted(path for path in below(root) if _is_artefact(root, path)):
        try:
            artefact = open_intact(workspace, folder, thorough=True)
            on_bytes(sum((folder / file).stat().st_size for file in artefact.manifest.files))
        except DamagedArtefactError as damaged:
            place = folder.relative_to(workspace.root).as_posix()
            yield Damaged(place, damaged.message, NEXT_RUN, partial(_take_away, workspace, folder))


def _take_away(workspace: Workspace, folder: Path) -> None:
    set_aside(folder, workspace.root)
    for link in _links(workspace):  # those of recipes that had it; the next run links what it makes
        assert link.mend is not None, "links that lead nowhere can be taken away"
        link.mend()


def _is_artefact(root: Path, path: Path) -> bool:
    """Whether a folder is named like an artefact: by a key of 16 hexadecimal digits; its manifest may be missing."""
    name = path.name
    if len(name) != 16 or not path.is_dir() or not all(each in "0123456789abcdef" for each in name):
        return False
    inner = path.relative_to(root).parts[:-1]
    return not any(part.endswith((DRAFT, SCRATCH)) for part in inner)


def _shards(workspace: Workspace, on_bytes: Callable[[int], object]) -> Iterator[Damaged]:
    for path in sorted(workspace.shards.glob("*/*/[!.]*.parquet")):
        wrong = SealedFile(path).wrong(thorough=True)
        if wrong is not None:
            yield Damaged(
                path.relative_to(workspace.root).as_posix(), f"{wrong}.", NEXT_RUN, partial(_remove, path, workspace)
            )
        else:
            on_bytes(path.stat().st_size)


def _remove(path: Path, workspace: Workspace) -> None:
    if path.is_dir():
        set_aside(path, workspace.root)
    else:
        path.unlink()


def _links(workspace: Workspace) -> Iterator[Damaged]:
    """What recipes have instead of links to their artefacts."""
    stores = workspace.stores
    for folder, names, files in os.walk(workspace.root):
        names[:] = [name for name in names if Path(folder, name) not in stores and not name.startswith(".")]
        for path in (Path(folder, name) for name in (*names, *files)):
            if what := _wrong_link(path, workspace):
                place = path.relative_to(workspace.root).as_posix()
                yield Damaged(place, what, "the next run of the recipe links it again", _away(path, workspace))


def _wrong_link(path: Path, workspace: Workspace) -> str:
    if path.is_symlink() and not path.exists():
        return f"{path} is a link to {path.readlink()}, where nothing is."
    if not (path / MANIFEST).is_file() or path.resolve().is_relative_to(workspace.artefacts.resolve()):
        return ""
    if path.is_symlink():
        return f"{path} is a link to {path.readlink()}, which is not in {workspace.artefacts}."
    return f"{path} is a copy of an artefact, where a link to it belongs."


def _away(path: Path, workspace: Workspace) -> Callable[[], object]:
    """Takes a link, or what is in the place of one, out of the way; it may be gone already."""
    return partial(path.unlink, missing_ok=True) if path.is_symlink() else partial(set_aside, path, workspace.root)


def _releases(workspace: Workspace) -> Iterator[Damaged]:
    for folder in sorted(path for path in workspace.releases.glob("*") if path.is_dir()):
        releases = Releases(workspace, folder.name)
        for name in sorted({path.stem for path in folder.glob("*.json")}):
            place = f"releases/{folder.name}/{name}"
            try:
                digest = open_intact(workspace, releases.folder(name)).digest
                if digest != releases.record(name)["digest"]:
                    yield Damaged(place, "its files are not those that were promoted.", "promote it again")
            except DamagedArtefactError:  # it is among the artefacts already
                continue
            except (StorageError, KeyError) as error:
                yield Damaged(place, str(error), "promote it again, or go back to another one")
        try:
            releases.active()
        except StorageError as error:
            place = f"releases/{folder.name}/{ACTIVE_LINK}"
            yield Damaged(place, str(error), "promote a release again", _away(folder / ACTIVE_LINK, workspace))


def _records(workspace: Workspace) -> Iterator[Damaged]:
    for path in sorted(workspace.starts.glob("*.json")):
        try:
            read_start(workspace, path.stem)
        except UserError as error:
            yield Damaged(f"starts/{path.name}", error.message, error.remedy)
    for path in sorted([path for place in LINES for path in (workspace.root / place).glob("*.jsonl")]):
        place = path.relative_to(workspace.root).as_posix()
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError as error:
            yield Damaged(place, f"cannot be read: {error.strerror}.", "remove it, or restore it from a backup")
            continue
        for number, line in enumerate(lines, 1):
            try:
                if line:
                    unseal(json.loads(line))
            except ValueError as error:
                yield Damaged(place, f"line {number} is not as it was written: {error}.", "remove the line")


def _services(workspace: Workspace) -> Iterator[Damaged]:
    """What is noted of services next to their answers, which are in journals."""
    for folder in sorted(path for path in workspace.api.glob("*") if path.is_dir()):
        for error in (*Epochs(folder).damages(), *Orders(folder).damages()):
            yield Damaged(folder.relative_to(workspace.root).as_posix(), error.message, error.remedy)
        for file in sorted(folder.rglob(FILE)):
            for number in RefusedTexts(file.parent).damaged():
                place, what = file.relative_to(workspace.root).as_posix(), f"line {number} is not as it was written."
                yield Damaged(place, what, "remove the line; its text is asked for again, and refused again")


def _environments(workspace: Workspace) -> Iterator[Damaged]:
    remedy = f"`--repair` removes the environment, and the next run with `{FLAG}` that needs it makes it again"
    for folder in sorted(path for path in workspace.environments.glob("*") if path.is_dir()):
        for what in deviations(folder):
            place = folder.relative_to(workspace.root).as_posix()
            yield Damaged(place, f"{what}.", remedy, partial(remove_folder, folder, workspace.root))


def _history(workspace: Workspace) -> Iterator[Damaged]:
    for folder in workspace.history:
        for file, said in damaged_databases(folder):
            mend = partial(set_aside, file, workspace.root)
            yield Damaged(file.relative_to(workspace.root).as_posix(), f"SQLite says: {said}.", NEW_HISTORY, mend)
