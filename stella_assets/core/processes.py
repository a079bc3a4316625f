"""Whether a process that was noted down still lives; its number may be another's by then, so its start is noted too."""

from __future__ import annotations

import psutil


def note_process() -> str:
    """This process, `<pid>@<start>`."""
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
