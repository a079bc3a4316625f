"""Leases: what builds that run, or that were interrupted, may still need, so that no collector takes it from them.

The scratch folder of an artefact is there from the beginning of its build until the artefact is linked, also after a
kill or an error. So it is the lease; a file in it says whose it is.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from stella_assets.core.processes import is_alive, note_process
from stella_assets.storage.artefacts import DRAFT, SCRATCH
from stella_assets.storage.files import below, write_atomically
from stella_assets.storage.removal import remove_folder
from stella_assets.storage.workspace import Workspace

LEASE = "lease.json"
GRACE_DAYS = 7.0
"""How long an interrupted build keeps what it may need; the same run again goes on from it."""


@dataclass(frozen=True)
class Lease:
    """A build that is running, or was interrupted.

    Attributes:
        recipe: Name of the recipe.
        asset: Name of the step.
        process: Of the build, as `note_process` gives it.
        host: Where it runs.
        inputs: Folders of the artefacts that it reads.
    """

    recipe: str
    asset: str
    process: str
    host: str
    inputs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.recipe}/{self.asset}"


def take_lease(scratch: Path, recipe: str, asset: str, inputs: Mapping[str, Path]) -> None:
    """Say in the scratch folder of a build whose it is, before it reads or writes anything.

    Args:
        scratch: The folder.
        recipe: Name of the recipe.
        asset: Name of the step.
        inputs: Folders of the artefacts that it reads.
    """
    lease = Lease(recipe, asset, note_process(), socket.gethostname(), tuple(str(path) for path in inputs.values()))
    write_atomically(scratch / LEASE, json.dumps(asdict(lease)))


def leases(workspace: Workspace, now: float | None = None) -> list[Lease]:
    """The leases that are in force: of builds that run, and of those that were interrupted in the last days.

    Args:
        workspace: Where artefacts are made.
        now: The time, in seconds; by default the present.
    """
    folders = [path for path in below(workspace.artefacts) if path.name.endswith(SCRATCH)]
    return [lease for folder in folders if _is_in_force(folder, lease := _read(folder), now)]


def remove_expired(workspace: Workspace, now: float | None = None, linked: Collection[Path] = ()) -> None:
    """Remove what interrupted builds left that nobody went on with for days, or that nobody needs to go on with.

    Args:
        workspace: Where artefacts are made.
        now: The time, in seconds; by default the present.
        linked: Folders of artefacts that some recipe has. A build that was killed after it had linked its artefact
            needs nothing more.
    """
    for folder in [path for path in below(workspace.artefacts) if path.name.endswith((SCRATCH, DRAFT))]:
        # A draft has no lease of its own: the scratch folder of the same build lies next to it.
        both = (folder, folder.with_suffix(SCRATCH))
        done = folder.with_suffix("") in linked and not any(_is_running(_read(each)) for each in both)
        if done or not any(_is_in_force(each, _read(each), now) for each in both):
            remove_folder(folder, workspace.root)


def _is_running(lease: Lease) -> bool:
    # Of a process on another host nothing is known.
    return lease.host == socket.gethostname() and is_alive(lease.process)


def _is_in_force(folder: Path, lease: Lease, now: float | None) -> bool:
    return _is_running(lease) or _changed_at(folder) > (time.time() if now is None else now) - GRACE_DAYS * 86_400


def _read(folder: Path) -> Lease:
    with suppress(OSError, ValueError, TypeError):
        read = json.loads((folder / LEASE).read_text(encoding="utf-8"))
        return Lease(**{**read, "inputs": tuple(read["inputs"])})
    # Of an older version, or killed before it was written; it counts by its age.
    return Lease("?", folder.name, "", "")


def _changed_at(folder: Path) -> float:
    times = [0.0]
    for path in (folder, *below(folder)):
        with suppress(OSError):  # a running build removes files
            times.append(path.stat().st_mtime)
    return max(times)
