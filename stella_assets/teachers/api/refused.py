"""Texts that a service does not take. They are noted with its reason, and are not sent again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from stella_assets.storage.keys import Keys, to_keys
from stella_assets.storage.lines import append_lines
from stella_assets.storage.sealed import seal, unseal

FILE = "refused.jsonl"


class RefusedTexts:
    """The refused texts of one fingerprint; one line each in a file that a person may read and delete.

    Args:
        folder: Of the fingerprint.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE

    def reasons(self) -> dict[str, str]:
        """The service's words, by the id of the text. Texts of lines that are not whole are asked for again."""
        rows = (_read(line) for line in self._lines())
        return {row["id"]: row["reason"] for row in rows if row}

    def damaged(self) -> list[int]:
        """Numbers, from 1, of the lines that are not as they were written, but for what a killed process left."""
        return [number for number, line in enumerate(self._lines(), 1) if line.endswith(b"\n") and not _read(line)]

    def _lines(self) -> list[bytes]:
        return self._file.read_bytes().splitlines(keepends=True) if self._file.is_file() else []

    def keys(self) -> Keys:
        """Their keys, ascending."""
        return to_keys(sorted(self.reasons()))

    def add(self, reasons: Mapping[str, str]) -> None:
        """Note texts, by id; they are on the disk when this returns."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        append_lines(self._file, (seal({"id": key, "reason": reason, "at": at}) for key, reason in reasons.items()))


def _read(line: bytes) -> dict[str, str]:
    """A line; empty if it is not whole."""
    with suppress(ValueError):
        row = unseal(json.loads(line))
        if {"id", "reason"} <= row.keys():
            return row
    return {}
