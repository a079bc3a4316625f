"""`kill -9` while a service is paid: nothing that was answered and kept is paid again."""

from pathlib import Path

import pytest

from tests.faults.api_kills import Home, attack, counts, finish, stand_in


@pytest.mark.slow
def test_killed_runs_pay_again_for_nothing_but_what_was_in_flight(tmp_path: Path) -> None:
    outcome = attack(tmp_path, kills=6, seed=2)
    print(outcome)
    assert outcome.faults == []
    assert outcome.kills >= 4
    assert outcome.answered <= outcome.texts + outcome.canaries + outcome.in_flight_at_most


@pytest.mark.slow
def test_two_processes_share_the_texts_of_one_teacher(tmp_path: Path) -> None:
    with stand_in() as address:
        home = Home(tmp_path, address, 3000)
        assert [finish(process) for process in (home.start(), home.start())] == ["", ""]
        rows, vectors, damages = home.journal()
        canaries, _, _ = home.journal("canaries")
        assert (rows, len(vectors), damages) == (3000, 3000, [])
        assert canaries in (64, 128)  # a process that finds all done asks nothing
        assert counts(address)["texts"] == 3000 + canaries
