"""Which errors are tried again, and when."""

from datetime import UTC, datetime

import pytest

from stella_assets.teachers.api.retry import RetryPolicy, asked_wait, is_passing

NOW = datetime(2026, 11, 27, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "Fri, 27 Nov 2026 12:00:30 GMT"}, 30),
        ({"retry-after": "Fri, 27 Nov 2026 11:00:00 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after-ms": "250", "retry-after": "2"}, 2),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "6m0s"}, None),
        ({"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "6m0s"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "tomorrow"}, None),
    ],
    ids=str,
)
def test_every_way_to_ask_for_patience_is_understood(headers: dict[str, str], seconds: float | None):
    assert asked_wait(headers, NOW) == (None if seconds is None else pytest.approx(seconds))


def test_waits_double_up_to_a_minute_and_are_never_shorter_than_asked():
    policy = RetryPolicy()
    for tries, middle in ((1, 0.5), (2, 1), (4, 4), (8, 60), (30, 60), (2000, 60)):
        waits = [policy.wait(tries, None) for _ in range(200)]
        assert 0.75 * middle <= min(waits) < max(waits) <= 1.25 * middle
        assert len(set(waits)) > 100
    assert all(policy.wait(1, 9.0) == 9.0 for _ in range(20))


@pytest.mark.parametrize("status", [408, 409, 424, 425, 429, 500, 502, 503, 504, 529])
def test_what_can_pass_is_tried_again(status: int):
    assert is_passing(status, {})
    assert not is_passing(status, {"x-should-retry": "false"})


@pytest.mark.parametrize("status", [301, 400, 401, 402, 403, 404, 405, 413, 422, 498, 499])
def test_what_cannot_pass_is_not(status: int):
    assert not is_passing(status, {})
    assert is_passing(status, {"x-should-retry": "true"})
