"""Peak resident memory of a stretch of work."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """Measures the process's peak resident memory inside a `with` block, in MiB.

    Linux can reset its high-water mark; elsewhere the figure is the process's peak so far.
    """

    peak_mib: int = 0

    def __enter__(self) -> PeakMemory:
        if CLEAR.exists():
            CLEAR.write_text("5")
        return self

    def __exit__(self, *_: object) -> None:
        if STATUS.exists():
            line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
            self.peak_mib = int(line.split()[1]) // 1024
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            self.peak_mib = peak // (2**20 if sys.platform == "darwin" else 2**10)
