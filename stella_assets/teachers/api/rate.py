"""The pace of requests: what a service allows in a minute, less after it said that this was too much."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

from stella_assets.teachers.api.limits import Limits

SHORTEST = 0.1
"""Seconds over which a rate is measured, at least."""
Clock = Callable[[], float]
"""Seconds, like `time.monotonic`."""
MINUTE = 60.0
# Requests do not arrive at the distances they were sent at.
HEADROOM = 0.98
"""Part of a limit that is used."""
BURST = 0.6
"""Seconds of a limit that may be used at once; together with `HEADROOM` less than what any minute allows."""
RECOVERY = 60.0
"""Seconds in which a rate doubles that was halved: from half of it to the whole of it."""
RETURN = 20.0
"""The same, up to what a service is known to admit: each minute at half of the rate is lost."""
SEARCH = 10_000.0
"""The same, near what it is known to refuse: some five minutes for what `HEADROOM` leaves."""


class Bucket:
    """Admits amounts of one thing at a rate, which is halved when the service refuses, and raised slowly after.

    Args:
        per_minute: The limit; None where nobody knows it: then there is a rate only after the first refusal.
        clock: Of seconds.
    """

    def __init__(self, per_minute: float | None, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._stated = per_minute is not None
        self._limit = None if per_minute is None else HEADROOM * per_minute / MINUTE
        self.rate = self._limit
        self._level = self._capacity
        self._then = self._cut = self._began = clock()
        self._admitted = 0.0
        self._minute: deque[tuple[float, float]] = deque()
        self._found: float | None = None

    @property
    def _capacity(self) -> float:
        return max(1.0, BURST * (self.rate or 0))

    def _refill(self) -> None:
        now = self._clock()
        passed, self._then = now - self._then, now
        if self.rate is None:
            return
        doubling, most = RECOVERY, self._limit or float("inf")
        if self._limit is None and self._found is not None:
            # Where nobody knows the limit, the last refusal told it. Above that the service admits more by now.
            below = HEADROOM * self._found
            if self.rate < below:
                doubling, most = RETURN, below
            elif self.rate <= self._found / HEADROOM:
                doubling = SEARCH
        # The exponent is cut: a laptop may sleep.
        self.rate = min(self.rate * 2 ** min(passed / doubling, 30.0), most)
        self._level = min(self._level + self.rate * passed, self._capacity)

    def delay(self, amount: float) -> float:
        """Seconds until an amount may be sent; 0 for now."""
        self._refill()
        if self.rate is None:
            return 0.0
        # More than the capacity is admitted when the bucket is full, and paid for after.
        return max(0.0, (min(amount, self._capacity) - self._level) / self.rate)

    def take(self, amount: float) -> None:
        """Count an amount as sent; a negative one gives back what was counted too much."""
        self._level -= amount
        self._admitted += amount
        if self._limit is None:
            now = self._clock()
            self._minute.append((now, amount))
            while self._minute[0][0] <= now - MINUTE:
                self._minute.popleft()

    def refused(self, sent: float) -> None:
        """Halve the rate, unless that was done after this request was sent.

        Args:
            sent: When the refused request was sent, by the clock.
        """
        if sent < self._cut:
            return
        self._refill()
        now = self._clock()
        rate = self.rate if self.rate is not None else self._admitted / max(SHORTEST, now - self._began)
        if self._limit is None and now - self._began >= MINUTE:
            minute = sum(amount for moment, amount in self._minute if moment > now - MINUTE) / MINUTE
            # A refusal for another reason, after a slow minute, must not be taken for a low limit.
            self._found = max(minute, HEADROOM * (self._found or 0.0))
            rate = min(rate, self._found)
        if rate > 0:
            self._level = 0.0 if self.rate is None else min(self._level, 0.0)
            self.rate, self._cut = rate / 2, now

    def learn(self, limit: float | None, remaining: float | None) -> None:
        """Take over what the service says of itself. Gateways send -1 and 0 for what they do not know.

        Args:
            limit: Per minute.
            remaining: Of this minute.
        """
        if not self._stated and limit is not None and limit > 0:
            self._limit = HEADROOM * limit / MINUTE
            if self.rate is None:
                # What was sent before the limit was known is a debt.
                earned = self._limit * (self._clock() - self._began)
                self.rate, self._level = self._limit, min(max(1.0, BURST * self._limit), earned - self._admitted)
        if self.rate is not None and remaining is not None and remaining > 0:
            self._level = min(self._level, remaining)


class Pace:
    """When the next request may be sent.

    Args:
        limits: Per minute: of requests, texts and tokens.
        clock: Of seconds.
    """

    def __init__(self, limits: Limits, clock: Clock = time.monotonic) -> None:
        self.clock = clock
        self._requests = Bucket(limits.requests_per_minute, clock)
        self._texts = Bucket(limits.texts_per_minute, clock)
        self._tokens = Bucket(limits.tokens_per_minute, clock)
        self._paused_until = clock()

    def delay(self, texts: int, tokens: float) -> float:
        """Seconds until a request of so many texts and tokens may be sent."""
        buckets = (self._requests.delay(1), self._texts.delay(texts), self._tokens.delay(tokens))
        return max(self._paused_until - self.clock(), 0.0, *buckets)

    def take(self, texts: int, tokens: float) -> None:
        """Count a request as sent."""
        self._requests.take(1)
        self._texts.take(texts)
        self._tokens.take(tokens)

    def settle(self, expected: float, billed: float) -> None:
        """Give back what was counted too much, or count what was counted too little."""
        self._tokens.take(billed - expected)

    def refused(self, sent: float, wait: float) -> None:
        """A request that was sent at a time was refused as one too many: all wait, and go on at half of the rate."""
        self._paused_until = max(self._paused_until, self.clock() + wait)
        for bucket in (self._requests, self._texts, self._tokens):
            bucket.refused(sent)

    def learn(self, headers: Mapping[str, str]) -> None:
        """Read `x-ratelimit-limit-*` and `x-ratelimit-remaining-*`, where an answer has them."""
        for name, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            bucket.learn(
                _number(headers.get(f"x-ratelimit-limit-{name}")), _number(headers.get(f"x-ratelimit-remaining-{name}"))
            )


def _number(word: str | None) -> float | None:
    try:
        return None if word is None else float(word)
    except ValueError:
        return None
