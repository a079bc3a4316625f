"""Damage of journals: which files have records that are not as they were written, and files without these."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stella_assets.storage.files import replace_atomically
from stella_assets.storage.journal import SUFFIX
from stella_assets.storage.journal_frames import Record, is_unfinished, read_bytes, scan
from stella_assets.storage.removal import set_aside


@dataclass(frozen=True)
class DamagedJournal:
    """A file with records that are not as they were written.

    Attributes:
        file: The file.
        what: What is wrong, in words.
        rows: Rows of the records, as far as these can be told.
    """

    file: Path
    what: str
    rows: int


def damaged_journals(root: Path) -> Iterator[DamagedJournal]:
    """Read all journals below a folder. The end of a file that a killed process did not finish is not damage."""
    for file in sorted(root.rglob(f"*{SUFFIX}")):
        if not file.is_file():
            yield DamagedJournal(file, "is not a file; the answers that it had are not used", 0)
            continue
        whole, lost, odd, rows = 0, 0, 0, 0
        for found in scan(file, 0):
            # Bytes that are no record are damage if a record follows.
            lost, odd = lost + bool(odd and isinstance(found, Record)), 0
            if isinstance(found, int):
                odd = found
            elif found.is_whole():
                whole += 1
            else:
                lost, rows = lost + 1, rows + found.rows
        lost += bool(odd and not is_unfinished(file, file.stat().st_size - odd))
        if lost:
            what = f"{lost:,} of {whole + lost:,} records are not as they were written; their answers are not used"
            yield DamagedJournal(file, what, rows)


def mend_journal(root: Path, file: Path) -> None:
    """Replace a journal's file by one of its whole records; the damaged one is kept in `.damaged` of `root`.

    Killed in between, it leaves both, and their records are found in either.
    """
    if not file.is_file():  # there is nothing to keep of it
        set_aside(file, root)
        return
    fresh = file.with_name(f"{file.name.removesuffix(SUFFIX)}-{secrets.token_hex(4)}{SUFFIX}")
    with replace_atomically(fresh) as draft, draft.open("wb") as content:
        for record in scan(file, 0):
            if isinstance(record, Record) and record.is_whole():
                content.write(read_bytes(file, record.offset, record.size))
    set_aside(file, root)
