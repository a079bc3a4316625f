"""Other processes: whether one that was noted still lives, and clean ones that compute matrices."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    import numpy as np


def run_clean(module: str, request: Any, scratch: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Run a module in a process of its own: `python -m MODULE REQUEST.json ANSWER OPTIONS`.

    Nothing that this process has loaded or registered can hide a fault there. Not multiprocessing: a spawned process
    runs the caller's script again, and a forked one inherits what is loaded.

    Args:
        module: Its name.
        request: Written as JSON for it.
        scratch: For the files that the processes exchange.
        *options: More arguments.

    Returns:
        The ended process, and the file that it was to write.
    """
    asked, answered = scratch / "request.json", scratch / "answer.npz"
    asked.write_text(json.dumps(request), encoding="utf-8")
    command = [sys.executable, "-W", "ignore", "-m", module, str(asked), str(answered), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False), answered


def read_matrices(path: Path) -> dict[str, np.ndarray]:
    """The matrices that a clean process wrote, by name."""
    import numpy as np

    # No pickles: a model's own code may have written the file.
    with np.load(path, allow_pickle=False) as matrices:
        return {name: matrices[name] for name in matrices.files}


def note_process() -> str:
    """This process, `<pid>@<start>`: its number may be another's later, so its start is noted too."""
    process = psutil.Process()
    return f"{process.pid}@{process.create_time():.2f}"


def is_alive(noted: str) -> bool:
    """Whether the process lives: one that ended and was not waited for does not."""
    pid, _, started = noted.partition("@")
    try:
        process = psutil.Process(int(pid))
        # Start times are computed from the boot time, which moves when the clock is set: hence a second of tolerance.
        return bool(abs(process.create_time() - float(started)) < 1 and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.NoSuchProcess, ValueError):
        return False
