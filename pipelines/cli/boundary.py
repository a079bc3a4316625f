"""The outermost frame of the command: errors become messages and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stella_assets.core.errors import EXPECTED, MissingResultError, UserError
from stella_assets.pipelines.cli.errors import log_bug, summarise
from stella_assets.pipelines.cli.printing import note
from stella_assets.pipelines.environment import workspace
from stella_assets.pipelines.remedies import damaged_history, describe, full_disk, no_file
from stella_assets.storage.errors import MissingKeysError, MissingReleaseError, MissingSnapshotError, NoReleaseError

MISSING = (MissingResultError, MissingSnapshotError, MissingKeysError, NoReleaseError, MissingReleaseError)
"""The command was right, and what it asks for was not made yet, or is gone."""


@contextmanager
def exit_on_errors() -> Iterator[None]:
    """Report what the block raises, and end the process.

    The exit code is 1 for a result that is missing, 2 for any other error that a person can correct, and 1 for a bug,
    whose traceback is written to a log file; only its path and one line are printed.
    """
    try:
        yield
    except MISSING as error:
        note(("error", "bold red"), f" {describe(error)}")
        sys.exit(1)
    except EXPECTED as error:
        note(("error", "bold red"), f" {describe(error)}")
        sys.exit(2)
    except Exception as bug:  # noqa: BLE001 (nothing is above this frame: it logs the bug)
        home = _home()
        if home and (known := full_disk(bug, home) or no_file(bug, home) or damaged_history(bug, home)):
            note(("error", "bold red"), f" {describe(known)}")
            sys.exit(2)
        log = log_bug(home, bug)
        note(("bug", "bold red"), f" {summarise(bug)} The traceback is in {log}")
        sys.exit(1)


def _home() -> Path | None:
    """The workspace's folder; None where there is none. It is not made here, as the environment may be at fault."""
    try:
        return workspace().root
    except UserError:
        return None
