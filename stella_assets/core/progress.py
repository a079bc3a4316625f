"""Progress bars for long work: in the terminal, and nowhere when the output is no terminal."""

from __future__ import annotations

import sys
from typing import Any


def progress_bar(total: int, description: str, unit: str, done: int = 0) -> Any:
    """A bar on standard error that shows speed and time left; update it with the count of what was done."""
    from tqdm.auto import tqdm

    return tqdm(
        total=total, initial=done, desc=description, unit=f" {unit}", disable=None, file=sys.stderr, leave=False
    )
