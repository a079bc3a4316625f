"""The outcome of each re-distillation, one line per run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from stella_assets.core.errors import UserError
from stella_assets.core.present import shown_time
from stella_assets.storage.lines import append_lines
from stella_assets.storage.sealed import seal, unseal
from stella_assets.storage.workspace import Workspace

Verdict = Literal["promoted", "rejected", "too little new", "nothing new", "failed"]
TRAINED = ("promoted", "rejected")
"""Verdicts on a student that was trained."""
FORMER_VERDICTS = {"kept": "rejected"}
"""In ledgers that older versions wrote, and what they are called now."""


class LedgerError(UserError):
    """A line of a ledger that was changed by hand."""


@dataclass(frozen=True)
class Entry:
    """One re-distillation.

    Attributes:
        started_at: When, in UTC.
        recipe: Name of the recipe.
        verdict: The outcome.
        why: The reason, in words.
        inputs: Digests of what the recipe depended on: `recipe`, and each source and teacher.
        new_texts: Texts that the active release did not learn from.
        embedded: Vectors that were computed, over all teachers.
        score: Mean score of the new student, times 100; None where none was trained.
        release: Name of the active release afterwards.
        seconds: How long it took.
    """

    started_at: str
    recipe: str
    verdict: Verdict
    why: str
    inputs: Mapping[str, str]
    new_texts: int = 0
    embedded: int = 0
    score: float | None = None
    release: str | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        active = f"{self.release} is active" if self.release else "no release is active"
        return f"{shown_time(self.started_at)} {self.verdict}: {self.why}; {active}"


class Ledger:
    """The re-distillations of a recipe.

    Args:
        workspace: Where the ledger is.
        recipe: Name of the recipe.
    """

    def __init__(self, workspace: Workspace, recipe: str) -> None:
        self._path = workspace.redistillations / f"{recipe}.jsonl"

    def entries(self) -> list[Entry]:
        """All entries, the oldest first. A partial line that a killed process wrote does not count.

        Raises:
            LedgerError: A line was changed by hand.
        """
        if not self._path.is_file():
            return []
        lines = self._path.read_bytes().splitlines(keepends=True)
        return [self._read(number, line) for number, line in enumerate(lines, 1) if line.endswith(b"\n")]

    def _read(self, number: int, line: bytes) -> Entry:
        try:
            row = unseal(json.loads(line))
            return Entry(**{**row, "verdict": FORMER_VERDICTS.get(row["verdict"], row["verdict"])})
        except (ValueError, TypeError, KeyError) as error:
            raise LedgerError(f"{self._path}:{number}: is not an entry ({error}).", "Remove the line.") from None

    def last_trained(self) -> Entry | None:
        """The last entry of a student that was trained, whether it was promoted or not.

        Returns:
            None where none was trained.

        Raises:
            LedgerError: A line was changed by hand.
        """
        return next((entry for entry in reversed(self.entries()) if entry.verdict in TRAINED), None)

    def last_examined(self) -> Entry | None:
        """The last entry that did not fail: its inputs need not be examined again.

        Returns:
            None where there is none.

        Raises:
            LedgerError: A line was changed by hand.
        """
        return next((entry for entry in reversed(self.entries()) if entry.verdict != "failed"), None)

    def add(self, entry: Entry) -> None:
        """Add a line, completely or not at all.

        One process at a time may call it for a recipe.

        Args:
            entry: The outcome of a re-distillation.
        """
        # The ledger decides what is examined again, so it must survive a power failure.
        append_lines(self._path, [seal(asdict(entry))])
