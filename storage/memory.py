"""Resident memory of the process: its peak in a stretch of work, and what the allocator keeps after it."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path
from typing import ClassVar

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """Measures the process's peak resident memory inside a `with` block, in MiB. Blocks may be nested.

    Linux can reset its high-water mark; elsewhere the figure is the process's peak so far. A nested block resets the
    mark too, so the outer blocks take note of it before that.
    """

    _open: ClassVar[list[PeakMemory]] = []

    def __init__(self) -> None:
        self.peak_mib = 0

    def __enter__(self) -> PeakMemory:
        self._note()
        self._open.append(self)
        if CLEAR.exists():
            # 5 resets the peak resident size (`man 5 proc_pid_clear_refs`) and leaves the pages alone.
            CLEAR.write_text("5")
        return self

    def __exit__(self, *_: object) -> None:
        self._note()
        self._open.remove(self)

    @classmethod
    def _note(cls) -> None:
        """Let every open block know of the mark as it stands."""
        peak = _peak_mib()
        for block in cls._open:
            block.peak_mib = max(block.peak_mib, peak)


def _peak_mib() -> int:
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) // 1024
    # macOS counts in bytes, other systems in KiB.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)


def return_freed_memory() -> None:
    """Give memory that was freed back to the system, where the C library can (glibc).

    glibc keeps what a thread has freed in that thread's arena. Each training and each evaluation frees about a GiB in
    the threads of torch, where no later work finds it.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
