"""The log of bugs, and the exit codes of the command line.

Exit code 2: a person can correct it. Exit code 1: a run failed, a result is missing, or a bug.
"""

from __future__ import annotations

import os
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path


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
