"""What came of each re-distillation, a line each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from storage.workspace import Workspace

from storage.artefacts import sync

Verdict = Literal["promoted", "rejected", "too little new", "nothing new", "failed"]
TRAINED = ("promoted", "rejected")
"""Verdicts of a student that was trained."""


class LedgerError(ValueError):
    """A line that is none of a ledger."""


@dataclass(frozen=True)
class Entry:
    """One re-distillation.

    Attributes:
        started_at: When, in UTC.
        recipe: Whose.
        verdict: What came of it.
        why: In words.
        inputs: Digests of what the recipe rested on: `recipe`, and each source and teacher.
        new_texts: Texts that the release did not learn from.
        embedded: Vectors that were computed, over all teachers.
        score: Mean score of the new student, times 100; None where there is none.
        release: What is served afterwards.
        seconds: What it took.
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
        served = f"; {self.release} is served" if self.release else "; nothing is served"
        return f"{self.started_at.replace('T', ' ').removesuffix('+00:00')} {self.verdict}: {self.why}{served}"


class Ledger:
    """The re-distillations of a recipe."""

    def __init__(self, workspace: Workspace, recipe: str) -> None:
        self._path = workspace.redistillations / f"{recipe}.jsonl"

    def entries(self) -> list[Entry]:
        """All of them, the oldest first; what a killed process wrote of a line does not count.

        Raises:
            LedgerError: A line was changed by hand.
        """
        if not self._path.is_file():
            return []
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [self._read(number, line) for number, line in enumerate(lines, 1) if line.endswith("\n")]

    def _read(self, number: int, line: str) -> Entry:
        try:
            return Entry(**json.loads(line))
        except (json.JSONDecodeError, TypeError) as error:
            raise LedgerError(f"{self._path}:{number}: is no entry ({error}). Remove the line.") from None

    def trained(self) -> Entry | None:
        """The last one that trained a student, for better or worse."""
        return next((entry for entry in reversed(self.entries()) if entry.verdict in TRAINED), None)

    def looked_at(self) -> Entry | None:
        """The last one that did not fail: its inputs need not be looked at again."""
        return next((entry for entry in reversed(self.entries()) if entry.verdict != "failed"), None)

    def add(self, entry: Entry) -> None:
        """Add a line, whole or not at all."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        before = self._path.read_bytes() if self._path.is_file() else b""
        with self._path.open("ab", buffering=0) as file:
            file.truncate(before.rfind(b"\n") + 1)  # what a killed process wrote of a line goes
            file.write(json.dumps(asdict(entry)).encode() + b"\n")
        sync(self._path)
