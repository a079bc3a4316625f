"""`kill -9` while a service is paid: nothing that was answered and kept is paid again."""

from pathlib import Path

import pytest

from tests.faults.api_kills import attack


@pytest.mark.slow
def test_killed_runs_pay_again_for_nothing_but_what_was_in_flight(tmp_path: Path) -> None:
    outcome = attack(tmp_path, kills=6, seed=2)
    print(outcome)
    assert outcome.faults == []
    assert outcome.kills >= 4
    assert outcome.answered <= outcome.texts + outcome.canaries + outcome.in_flight_at_most
