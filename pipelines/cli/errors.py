"""The log of bugs, and the exit codes of the command line.

Exit code 2: a person can correct it. Exit code 1: a run failed, a result is missing, or a bug.
"""

from __future__ import annotations

import os
import tempfile
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path


def log_bug(root: Path | None, error: BaseException) -> Path:
    """Write the traceback of a bug into a log file, and give its path."""
    return write_log(root, "".join(traceback.format_exception(error)))


def write_log(root: Path | None, text: str) -> Path:
    """Write a new file into `logs/` of the workspace; into a temporary folder where that is not possible.

    Args:
        root: Of the workspace; None where there is none.
        text: What to write.

    Returns:
        The file.

    Raises:
        OSError: The temporary folder cannot be written, either.
    """
    # With the process id: two commands may fail in the same second.
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.log"
    if root is not None:
        # The workspace may be what cannot be written.
        with suppress(OSError):
            (root / "logs").mkdir(parents=True, exist_ok=True)
            return _written(root / "logs" / name, text)
    return _written(Path(tempfile.mkdtemp(prefix="stella-")) / name, text)


def _written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def summarise(error: BaseException) -> str:
    """Type and first line of an error."""
    first = str(error).strip().splitlines()[:1]
    return ": ".join([type(error).__name__, *first])
