"""The ledger: a line is written completely or not at all."""

import json
from dataclasses import asdict

import pytest

from stella_assets.redistil.ledger import Entry, Ledger, LedgerError
from stella_assets.storage.workspace import Workspace


def entry(why: str) -> Entry:
    return Entry("2026-01-05T03:00:00+00:00", "weekly", "promoted", why, {})


def test_a_partial_line_of_a_killed_process_is_ignored_and_removed(workspace: Workspace):
    ledger = Ledger(workspace, "weekly")
    ledger.add(entry("one"))
    path = workspace.redistillations / "weekly.jsonl"
    path.write_text(path.read_text() + '{"started_at": "2026')
    assert [each.why for each in ledger.entries()] == ["one"]
    ledger.add(entry("two"))
    assert [each.why for each in ledger.entries()] == ["one", "two"]
    assert path.read_text().count("\n") == 2


@pytest.mark.parametrize("line", ["not JSON", '{"started_at": 1}', "[]"])
def test_a_line_that_was_changed_by_hand_is_named(workspace: Workspace, line: str):
    ledger = Ledger(workspace, "weekly")
    ledger.add(entry("one"))
    path = workspace.redistillations / "weekly.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(LedgerError, match=r"weekly.jsonl:2: is not an entry .* Remove the line."):
        ledger.entries()


def test_entries_of_older_versions_have_the_current_verdicts(workspace: Workspace):
    path = workspace.redistillations / "weekly.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**asdict(entry("one")), "verdict": "kept"}) + "\n")
    assert [each.verdict for each in Ledger(workspace, "weekly").entries()] == ["rejected"]
