"""Reading in the background while batches are used, and how long training waited for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

B = TypeVar("B")

READ_TOGETHER = 4
"""Batches that are read at once: a read has its fixed cost."""


def read_ahead(read: Callable[[Sequence[int]], list[B]], steps: Sequence[int]) -> Iterator[B]:
    """Batches of steps, in order, read in the background while earlier ones are used.

    Args:
        read: Gives the batches of some steps.
        steps: Their numbers.

    Yields:
        The batches. An error of `read` is raised where its first batch would come.
    """
    # One after another: a list of all parts of a long run would not fit in memory.
    parts = (steps[start : start + READ_TOGETHER] for start in range(0, len(steps), READ_TOGETHER))
    # A thread is enough: the store releases the interpreter's lock. One, so that at most two parts are in memory.
    with ThreadPoolExecutor(1) as reader:
        ahead = None
        for part in parts:
            # The next part is asked for before this one is used.
            now, ahead = ahead, reader.submit(read, part)
            yield from now.result() if now else []
        yield from ahead.result() if ahead else []


class Stopwatch:
    """Seconds that the training loop waited for its data, and seconds in total."""

    def __init__(self) -> None:
        self.waiting = 0.0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it was created."""
        # Not 0, as speeds are divided by it.
        return max(1e-9, time.monotonic() - self._started)

    def watch(self, batches: Iterator[B]) -> Iterator[B]:
        """The batches; the time that each took to come is added up.

        Args:
            batches: None of them is None.

        Yields:
            The same batches.
        """
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            self.waiting += time.monotonic() - asked
            if batch is None:
                return
            yield batch
