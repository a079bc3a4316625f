"""Which answers are worth another try, and after how long."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

TOO_MANY = 429
# 424 is a backend that failed behind a gateway, 425 a request that came too early.
PASSING = frozenset({408, 409, 424, 425, TOO_MANY})
"""Statuses below 500 that another try may mend."""
ABOUT_TEXTS = frozenset({400, 413, 422})
"""Statuses that may be due to one text of a request, or to its size."""
RESET = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?")
"""Times such as `6m0s` and `20ms`."""


@dataclass(frozen=True)
class RetryPolicy:
    """How long a request is tried.

    Attributes:
        first: Seconds before the second try; twice as many before each further one.
        longest: Seconds between two tries, at most, where the service does not ask for more.
        tries: Of one request whose answers are errors or do not come; 429 is counted by `patience` alone.
        patience: Seconds of waiting between tries after which a request is given up.
        answers: Of one request that cannot be used, e.g. with a NaN, before it is given up; each may be billed.
        unreachable: Connections that fail before anything was answered: the address is wrong then, most likely.
    """

    first: float = 0.5
    longest: float = 60.0
    tries: int = 8
    patience: float = 900.0
    answers: int = 3
    unreachable: int = 3

    def wait(self, tries: int, asked: float | None) -> float:
        """Seconds before the next try.

        Args:
            tries: So far.
            asked: What the service asks for; None where it does not say.
        """
        backoff: float = min(self.longest, self.first * 2 ** min(tries - 1, 30)) * random.uniform(0.75, 1.25)
        return max(asked or 0.0, backoff)


def is_passing(status: int, headers: Mapping[str, str]) -> bool:
    """Whether an error is worth another try. `x-should-retry` of the service decides, where it is sent."""
    said = headers.get("x-should-retry")
    if said in ("true", "false"):
        return said == "true"
    return status in PASSING or status >= 500


def asked_wait(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that a service asks to wait: the longest of what its headers say.

    Args:
        headers: `retry-after-ms`; `retry-after` in seconds or as a date; for what is used up, `x-ratelimit-reset-*`.
        now: For the date; the present time where not given.

    Returns:
        None where they do not say.
    """
    waits: list[float | None] = []
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        waits.append(milliseconds / 1000)
    if after := headers.get("retry-after"):
        seconds = _seconds(after)
        waits.append(_until(after, now or datetime.now(UTC)) if seconds is None else seconds)
    waits += [
        _reset(headers.get(f"x-ratelimit-reset-{name}", ""))
        for name in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{name}") == "0"
    ]
    return max((wait for wait in waits if wait is not None and wait >= 0), default=None)


def _seconds(word: str | None) -> float | None:
    try:
        seconds = float(word or "")
    except ValueError:
        return None
    return seconds if seconds < float("inf") else None


def _until(date: str, now: datetime) -> float | None:
    try:
        then = parsedate_to_datetime(date)
    except ValueError:
        return None
    return (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds()


def _reset(word: str) -> float | None:
    seconds = _seconds(word)
    found = RESET.fullmatch(word)
    if seconds is not None or not found or not word:
        return seconds
    hours, minutes, rest, milliseconds = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + rest + milliseconds / 1000
