"""Texts that a service does not take. They are noted with its reason, and are not sent again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from stella_assets.storage.keys import Keys, to_keys
from stella_assets.storage.lines import append_lines

FILE = "refused.jsonl"


class RefusedTexts:
    """The refused texts of one fingerprint; one line each in a file that a person may read and delete.

    Args:
        folder: Of the fingerprint.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE

    def reasons(self) -> dict[str, str]:
        """The service's words, by the id of the text."""
        if not self._file.is_file():
            return {}
        lines = self._file.read_bytes().splitlines()
        found: dict[str, str] = {}
        for line in lines:
            try:
                row = json.loads(line)
                found[row["id"]] = row["reason"]
            except (ValueError, KeyError, TypeError):  # the end of a line that a killed process did not finish
                continue
        return found

    def keys(self) -> Keys:
        """Their keys, ascending."""
        return to_keys(sorted(self.reasons()))

    def add(self, reasons: Mapping[str, str]) -> None:
        """Note texts, by id; they are on the disk when this returns."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        append_lines(self._file, ({"id": key, "reason": reason, "at": at} for key, reason in reasons.items()))
