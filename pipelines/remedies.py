"""What a person can do about an error. The storage layer knows no commands, so its remedies are here."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from stella_assets.core.errors import UserError
from stella_assets.storage import errors as storage
from stella_assets.storage.sqlite_files import DAMAGED, damaged_databases
from stella_assets.storage.workspace import Workspace

REMEDIES: dict[type[storage.StorageError], str] = {
    storage.StoreError: "Correct STELLA_VECTORS, or the credentials of the object store.",
    storage.FormatError: "Install the version of stella-distil that wrote it, or a newer one.",
    storage.AccessError: "Correct the credentials, or the permissions of the folder or bucket.",
    storage.UnreachableError: "Check the address in STELLA_VECTORS and the network, then run the command again.",
    storage.ConflictError: "Run the command again.",
    storage.DamageError: "`stella vectors verify` names what is damaged, and `--repair` makes it again.",
    storage.MissingSnapshotError: "`stella vectors list` shows the snapshots of every recipe.",
    storage.MissingKeysError: "`stella run RECIPE` makes them.",
    storage.VectorError: "Correct the teacher or the file that the vectors come from.",
    storage.DiskSpaceError: "Free some space, or set STELLA_HOME to a folder on a larger disk.",
    storage.ReleaseError: "`stella release list RECIPE` shows the releases.",
    storage.NoReleaseError: "`stella release list RECIPE` shows the releases.",
    storage.MissingReleaseError: "Promote another release: `stella release list RECIPE` shows them.",
    storage.TransferError: "Correct the options, or the files that they name.",
}
"""By type; an error without an entry of its own has that of the nearest type above it."""
DEFAULT_REMEDY = "Check the folder that STELLA_HOME names, then run the command again."


def describe(error: Exception) -> str:
    """What is wrong and what to do about it, as one text."""
    return str(error) if isinstance(error, UserError) else f"{error} {remedy_of(error)}".strip()


def remedy_of(error: Exception) -> str:
    """The remedy for an error of the storage layer."""
    # In the order of inheritance, so the nearest type comes first.
    remedies = (REMEDIES[kind] for kind in type(error).__mro__ if kind in REMEDIES)
    return next(remedies, DEFAULT_REMEDY if isinstance(error, storage.StorageError) else "")


NO_FILE = (errno.EISDIR, errno.ENOTDIR, errno.ELOOP)


def no_file(error: BaseException, root: Path) -> UserError | None:
    """The error of a path of the workspace that is a folder, or a link to itself, where a file belongs; else None.

    Args:
        error: What was raised.
        root: Of the workspace.
    """
    if not isinstance(error, OSError) or error.errno not in NO_FILE or error.filename is None:
        return None
    # Of a rename, what cannot be replaced.
    path = Path(os.fsdecode(error.filename2 or error.filename))
    if not path.is_relative_to(root):
        return None
    return UserError(
        f"{path}: cannot be used ({error.strerror}).",
        "Move it away, then run the command again; `stella verify` names what else is damaged.",
    )


def damaged_history(error: BaseException, root: Path) -> UserError | None:
    """The error of a damaged database of Dagster, if that is why something failed; else None.

    Args:
        error: What was raised.
        root: Of the workspace.
    """
    if not any(words in str(error) for words in DAMAGED):
        return None
    files = [str(file) for folder in Workspace(root).history for file, _ in damaged_databases(folder)]
    if not files:
        return None
    return UserError(
        f"{', '.join(files)}: damaged, as SQLite says. It is Dagster's record of runs, and decides no artefact.",
        "Move it away, or run `stella verify --repair`; the next run begins a new record.",
    )


FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_WORDS = ("no space left on device", "disk is full", "disk quota exceeded")
"""What SQLite, DuckDB and Lance say, whose errors have no number."""


def full_disk(error: BaseException, root: Path) -> storage.DiskSpaceError | None:
    """The error of a full disk, if that is why something failed; else None.

    Args:
        error: What was raised, by any library.
        root: Of the workspace.
    """
    # SQLite also says "disk I/O error", and others nothing of the disk.
    if root.exists() and shutil.disk_usage(root).free == 0:
        return storage.DiskSpaceError(f"{root}: there is no space left on this disk.", root)
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "errno", None) in FULL or any(words in str(cause).lower() for words in FULL_WORDS):
            others = "this disk, or on that of the output or of temporary files (TMPDIR)"
            return storage.DiskSpaceError(f"{root}: there is no space left on {others}.", root)
        cause = cause.__cause__ or cause.__context__
    return None
