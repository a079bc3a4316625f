"""SQLite databases of other programs in a workspace: whether they can be read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

DAMAGED = ("malformed", "is not a database")
"""What SQLite says of a damaged file; a locked one is not damaged."""


def damaged_databases(root: Path) -> Iterator[tuple[Path, str]]:
    """Databases below a folder, `*.db`, that SQLite cannot read as a whole, and what it says.

    Args:
        root: The folder; it need not exist.
    """
    for file in sorted(path for path in root.rglob("*.db") if path.is_file()):
        # Without a log of writes nobody has it open, and it is read without one: SQLite would make one and leave it.
        how = "mode=ro" if file.with_name(f"{file.name}-wal").exists() else "immutable=1"
        try:
            with closing(sqlite3.connect(f"{file.absolute().as_uri()}?{how}", uri=True)) as database:
                (said,) = database.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            said = str(error) if any(words in str(error) for words in DAMAGED) else "ok"
        if said != "ok":
            yield file, said.splitlines()[-1]
