"""Progress of long work: a bar in a terminal, and lines in the step's log where the output is no terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from stella_assets.core.step import Log

EVERY, AT_MOST = 10.0, 60.0
"""Seconds between two lines: of work that began just now, and of work of hours, whose log should stay readable."""

_log: ContextVar[Log | None] = ContextVar("log", default=None)
_open: ContextVar[tuple[Progress, ...]] = ContextVar("open", default=())


@contextmanager
def progress_in(log: Log) -> Iterator[None]:
    """Say the progress of the block's work in a log, where there is no terminal for a bar."""
    token = _log.set(log)
    try:
        yield
    finally:
        _log.reset(token)


def say_in_log(line: str, *, warning: bool = False) -> None:
    """A line in the log of the work that is under way; in the package's log where none is."""
    log = _log.get() or logging.getLogger("stella")
    log.log(logging.WARNING if warning else logging.INFO, line)


class Pace:
    """Says when the next line is due: after ten seconds, and later after a tenth of the time that has passed."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._next = self._began + EVERY

    def due(self) -> bool:
        """Whether a line is due now; it counts as said then."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + min(AT_MOST, max(EVERY, (now - self._began) / 10))
        return True


class Progress:
    """Counts what was done of some work, for `with`.

    A count within another one of the same work moves that one, e.g. the texts of a batch those of all units. Counts
    within one another share their pace, so that their lines come no more often than those of one.
    """

    def __init__(self, total: int, description: str, unit: str, done: int, lines: bool) -> None:
        from tqdm.auto import tqdm

        self.done = self._first = done
        self._total, self._description, self._unit, self._lines = total, description, unit, lines
        self._began, self._pace = time.monotonic(), Pace()
        self._whole: Progress | None = None
        self._words = ""
        around = _open.get()
        for each in around:
            self._pace = around[0]._pace
            if (each._description, each._unit) == (description, unit):
                self._whole = each
        # Outside a terminal the bar would be a line per update.
        hidden = self._whole is not None or not sys.stderr.isatty()
        self._bar: Any = tqdm(
            total=total, initial=done, desc=description, unit=f" {unit}", disable=hidden, file=sys.stderr, leave=False
        )

    def __enter__(self) -> Self:
        _open.set((*_open.get(), self))
        return self

    def __exit__(self, *_: object) -> None:
        # By identity and not by a token: a generator may end after what was opened later.
        _open.set(tuple(each for each in _open.get() if each is not self))
        self._bar.close()

    def update(self, count: int = 1) -> None:
        """More was done."""
        self.reach(self.done + count)

    def reach(self, done: int) -> None:
        """So much was done so far, whatever parts have counted."""
        if self._whole is not None:
            self._whole.update(done - self.done)
        self._bar.update(done - self.done)
        self.done = done
        log = _log.get()
        if self._whole is None and self._lines and log is not None and not sys.stderr.isatty() and self._pace.due():
            log.info(self._line())

    def note(self, words: str) -> None:
        """Show words next to the bar, and at the end of lines; of a part, next to the bar of the whole work."""
        self._words = words
        if self._whole is not None:
            self._whole.note(words)
        self._bar.set_postfix_str(words, refresh=False)

    def _line(self) -> str:
        speed = (self.done - self._first) / max(1e-9, time.monotonic() - self._began)
        rate = f"{speed:,.0f} {self._unit}/s" if speed >= 10 else f"{speed:.2g} {self._unit}/s"
        words = f", {self._words}" if self._words else ""
        if not self._total:
            return f"{self._description}: {self.done:,} {self._unit}, {rate}{words}"
        left = duration((self._total - self.done) / speed) if speed > 0 else "unknown time"
        return f"{self._description}: {self.done:,} of {self._total:,} {self._unit}, {rate}, {left} left{words}"


def progress_bar(total: int, description: str, unit: str, done: int = 0, lines: bool = True) -> Progress:
    """A bar on standard error that shows speed and time left; lines in the log where that is no terminal.

    Args:
        total: How much there is to do; 0 where nobody knows.
        description: What is done.
        unit: What is counted.
        done: What was done before.
        lines: Whether it says lines; work that says its own has a bar only.

    Example:
        >>> with progress_bar(len(texts), "minilm", "texts") as bar:
        ...     bar.update(128)
    """
    return Progress(total, description, unit, done, lines)


def duration(seconds: float) -> str:
    """A time in words, e.g. `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def money(dollars: float) -> str:
    """Dollars in digits; hundredths of a cent where it is less than a dollar, e.g. `0.0036`, as many requests are."""
    return f"{dollars:,.4f}" if 0 < dollars < 1 else f"{dollars:,.2f}"
