"""What the command line says about errors: remedies, exit codes, and the log of bugs.

Exit code 2: a person can correct it. Exit code 1: a run failed, a result is missing, or a bug.
"""

from __future__ import annotations

import os
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path

from stella_assets.core.errors import UserError
from storage import errors as storage

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


def log_bug(root: Path, error: BaseException) -> Path:
    """Write the traceback of a bug into a log file, and give its path."""
    return write_log(root, "".join(traceback.format_exception(error)))


def write_log(root: Path, text: str) -> Path:
    """Write a new file into `logs/` of the workspace; into a temporary folder where that is not possible.

    Args:
        root: Of the workspace.
        text: What to write.

    Returns:
        The file.

    Raises:
        OSError: The temporary folder cannot be written, either.
    """
    # With the process id: two commands may fail in the same second.
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.log"
    try:
        path = root / "logs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError:  # the workspace cannot be written, which may be the very cause
        path = Path(tempfile.mkdtemp(prefix="stella-")) / name
        path.write_text(text, encoding="utf-8")
    return path


def summarise(error: BaseException) -> str:
    """Type and first line of an error."""
    first = str(error).strip().splitlines()[:1]
    return ": ".join([type(error).__name__, *first])
