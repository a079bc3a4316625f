"""What services were paid: counted from the journals themselves, and written down as the view `api_costs`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stella_assets.storage.files import write_atomically
from stella_assets.storage.journal import SUFFIX, Journal
from stella_assets.storage.journal_frames import Record, scan
from stella_assets.storage.keys import Keys, find_sorted
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.tables import COSTS

NAMED = ("recipe", "teacher", "model", "purpose")
"""What every request is noted with."""


class Ledger:
    """What one service was paid in a workspace, by writing process and recipe.

    Args:
        workspace: Where answers are kept.
        service: The service's fingerprint.
    """

    def __init__(self, workspace: Workspace, service: str) -> None:
        self._service = service
        self._folder = workspace.api / service
        self._lines = workspace.root / COSTS.folder / f"{service}.jsonl"
        self._read_to: dict[Path, int] = {}
        self._rows: dict[tuple[Any, ...], dict[str, Any]] = {}

    def refresh(self) -> None:
        """Count what was answered since, also to other processes."""
        for file in sorted(self._folder.rglob(f"*{SUFFIX}")):
            for record in scan(file, self._read_to.get(file, 0)):
                if isinstance(record, Record):
                    self._count(file, record)
                    self._read_to[file] = record.offset + record.size

    def _count(self, file: Path, record: Record) -> None:
        try:
            about = record.about()
        except ValueError:  # damaged; verifying the journal names it
            return
        key = (file, *(about.get(name) for name in NAMED))
        row = self._rows.setdefault(
            key,
            {**{name: about.get(name) for name in NAMED}, "service": self._service, "started_at": about.get("at")}
            | {"requests": 0, "texts": 0, "tokens": 0, "dollars": 0.0},
        )
        dollars = about.get("dollars")
        row["requests"] += 1
        row["texts"] += record.rows
        row["tokens"] += about.get("tokens", 0)
        # Unknown once is unknown in all.
        row["dollars"] = None if dollars is None or row["dollars"] is None else row["dollars"] + dollars
        row["ended_at"] = about.get("at")

    @property
    def tokens(self) -> int:
        """All that were billed, as far as it was counted."""
        return sum(row["tokens"] for row in self._rows.values())

    @property
    def dollars(self) -> float | None:
        """All that was billed, as far as it was counted; None where a price was not known."""
        paid = [row["dollars"] for row in self._rows.values()]
        return None if None in paid else sum(paid)

    def write(self) -> None:
        """Write the lines of the view; one per process, recipe and purpose."""
        self.refresh()
        lines = "".join(json.dumps({n: row.get(n) for n in COSTS.schema.names}) + "\n" for row in self._rows.values())
        if lines:
            write_atomically(self._lines, lines)


def cost_of(journals: Iterator[tuple[Journal, Keys]]) -> dict[str, Any]:
    """What the vectors of some texts cost, whenever they were paid. Texts of one request share its cost equally.

    Args:
        journals: With the keys of the texts.

    Returns:
        `texts` that a service answered, `requests`, `tokens` and `dollars`; None dollars where a price was not known.
    """
    texts = requests = 0
    tokens = 0.0
    dollars: float | None = 0.0
    for journal, keys in journals:
        # Those of a corpus are in order, and a copy would take as much memory again.
        wanted = keys if bool((keys[1:] >= keys[:-1]).all()) else np.sort(keys)
        for record in journal.records():
            used = int(find_sorted(wanted, record.keys())[1].sum())
            if not used:
                continue
            try:
                about = record.about()
            except ValueError:  # damaged; verifying the journal names it
                continue
            share = used / record.rows
            texts, requests, tokens = texts + used, requests + 1, tokens + share * about.get("tokens", 0)
            paid = about.get("dollars")
            dollars = None if paid is None or dollars is None else dollars + share * paid
    rounded = None if dollars is None else round(dollars, 6)
    return {"texts": texts, "requests": requests, "tokens": round(tokens), "dollars": rounded}
