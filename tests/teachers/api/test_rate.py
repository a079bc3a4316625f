"""The pace: within the limits of a minute, less after a refusal, more again later. Time is a number here."""

from collections import deque
from collections.abc import Callable

import pytest

from stella_assets.teachers.api.limits import Limits
from stella_assets.teachers.api.rate import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def run(pace: Pace, clock: Clock, seconds: float, tokens: float = 1, texts: int = 1) -> int:
    """Requests that are sent in so many seconds by one who waits as he is told."""
    end, sent = clock.now + seconds, 0
    while clock.now < end:
        wait = pace.delay(texts, tokens)
        if wait == 0:
            pace.take(texts, tokens)
            sent += 1
        else:
            clock.now += wait + 1e-9
    return sent


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize(
    ("limits", "tokens", "allowed"),
    [
        (Limits(requests_per_minute=600), 1, 600),
        (Limits(requests_per_minute=3), 1, 3),
        (Limits(tokens_per_minute=100_000), 500, 200),
        (Limits(texts_per_minute=2_000), 1, 2_000),
        (Limits(requests_per_minute=600, tokens_per_minute=100_000), 500, 200),
    ],
    ids=str,
)
def test_any_minute_holds_what_is_allowed_and_hardly_less(clock: Clock, limits: Limits, tokens: float, allowed: int):
    pace = Pace(limits, clock)
    minutes = [run(pace, clock, 60, tokens) for _ in range(4)]
    assert max(minutes) <= allowed
    assert sum(minutes[1:]) >= 0.95 * 3 * allowed - 3


def test_no_minute_anywhere_holds_more_than_is_allowed(clock: Clock):
    pace = Pace(Limits(requests_per_minute=120), clock)
    times = []
    for _ in range(600):
        while wait := pace.delay(1, 1):
            clock.now += wait + 1e-9
        pace.take(1, 1)
        times.append(clock.now)
    assert all(sum(start <= time < start + 60 for time in times) <= 120 for start in times)


def test_a_refusal_halves_the_rate_and_a_minute_brings_it_back(clock: Clock):
    pace = Pace(Limits(requests_per_minute=600), clock)
    full = run(pace, clock, 60)
    pace.refused(clock.now, 0)
    assert run(pace, clock, 5) == pytest.approx(full / 60 * 5 / 2, rel=0.15)
    run(pace, clock, 60)
    assert run(pace, clock, 60) == pytest.approx(full, rel=0.02)


def test_requests_that_were_in_flight_at_a_refusal_halve_it_once(clock: Clock):
    pace = Pace(Limits(requests_per_minute=600), clock)
    sent, clock.now = clock.now, clock.now + 1
    for _ in range(50):
        pace.refused(sent, 0)
    assert run(pace, clock, 10) == pytest.approx(600 / 60 * 10 / 2, rel=0.2)


def test_all_wait_as_long_as_the_service_asks_one_to(clock: Clock):
    pace = Pace(Limits(), clock)
    pace.refused(clock.now, 7)
    assert pace.delay(1, 1) == pytest.approx(7)


def test_a_limit_that_nobody_knows_is_found(clock: Clock):
    pace = Pace(Limits(), clock)
    for _ in range(200):  # 20 requests a second are too many
        pace.take(1, 1)
        clock.now += 0.05
    pace.refused(clock.now, 0)
    after = run(pace, clock, 10)
    assert 80 <= after <= 130
    # It is tried again whether more go through by now.
    assert run(pace, clock, 60) > 6 * after


@pytest.mark.parametrize("in_flight", [4, 32])
def test_a_limit_that_nobody_knows_is_used_and_seldom_exceeded(clock: Clock, in_flight: int):
    """A service that admits 600 requests in any minute, and says how long to wait; 18 minutes after the first two."""
    pace, admitted, began = Pace(Limits(), clock), deque[float](), clock.now
    answered, refused = 0, 0
    while (passed := clock.now - began) < 20 * 60:
        if wait := pace.delay(1, 1):
            clock.now += wait + 1e-9
            continue
        # As many are sent as the pace admits, before the first of them is answered.
        sent = [clock.now]
        while len(sent) < in_flight and pace.delay(1, 1) == 0:
            sent.append(clock.now)
            pace.take(1, 1)
        pace.take(1, 1)
        while admitted and admitted[0] <= clock.now - 60:
            admitted.popleft()
        free = 600 - len(admitted)
        admitted.extend(sent[:free])
        clock.now += 0.2
        for moment in sent[free:]:
            pace.refused(moment, max(admitted[0] + 60 - clock.now, 0))
        if passed >= 2 * 60:
            answered, refused = answered + len(sent[:free]), refused + len(sent[free:])
    assert answered >= 0.95 * 600 * 18
    assert refused <= 0.01 * answered


@pytest.mark.parametrize("name", ["requests", "tokens"])
def test_what_a_service_says_of_its_limits_is_believed_unless_it_cannot_be(clock: Clock, name: str):
    def sent(headers: dict[str, str], limits: Limits | None = None) -> int:
        pace = Pace(limits or Limits(), clock)
        pace.learn(headers)
        return sum(_admitted(pace) for _ in range(1000))

    limit, remaining = f"x-ratelimit-limit-{name}", f"x-ratelimit-remaining-{name}"
    assert sent({limit: "6000", remaining: "5999"}) < 70
    for untrue in ("-1", "0", "many", ""):
        assert sent({limit: untrue, remaining: untrue}) == 1000
    # What the recipe states counts, and what remains can be less.
    stated = Limits(requests_per_minute=60_000, tokens_per_minute=60_000)
    assert sent({limit: "10"}, stated) > 500
    assert sent({limit: "60000", remaining: "3"}, stated) == 3


def _admitted(pace: Pace) -> bool:
    if pace.delay(1, 1) > 0:
        return False
    pace.take(1, 1)
    return True


def test_tokens_that_were_counted_too_high_are_given_back(clock: Clock):
    honest, bounded = Pace(Limits(tokens_per_minute=60_000), clock), Pace(Limits(tokens_per_minute=60_000), clock)
    steps: list[Callable[[], None]] = [lambda: honest.take(1, 100), lambda: bounded.take(1, 400)]
    for step in steps:
        step()
    bounded.settle(400, 100)
    assert bounded.delay(1, 600) == pytest.approx(honest.delay(1, 600))


def test_what_was_sent_before_a_limit_was_known_is_counted(clock: Clock):
    pace = Pace(Limits(), clock)
    for _ in range(50):
        pace.take(1, 1)
    clock.now += 1
    pace.learn({"x-ratelimit-limit-requests": "600", "x-ratelimit-remaining-requests": "550"})
    assert run(pace, clock, 59) + 50 <= 600
