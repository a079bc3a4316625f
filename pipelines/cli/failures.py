"""What is printed of a run that failed, and with which exit code the command ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from stella_assets.pipelines.cli.errors import write_log
from stella_assets.pipelines.cli.printing import note
from stella_assets.pipelines.outcome import Outcome, StepFailure
from stella_assets.storage.workspace import Workspace


def print_failed_checks(outcome: Outcome) -> None:
    """Name the checks that did not pass."""
    for failed in outcome.failed_checks:
        note(("check failed", "bold yellow"), f" {failed.asset} {failed.check}: {failed.found}")


def stop_if_failed(outcomes: Sequence[Outcome], workspace: Workspace) -> None:
    """Print what failed and end the command, if something did.

    The exit code is 2 where a person can correct everything that failed, else 1. Tracebacks of bugs go into log files.

    Args:
        outcomes: Of all runs of the command.
        workspace: Where log files are written.

    Raises:
        SystemExit: A run failed.
    """
    failed = [outcome for outcome in outcomes if not outcome.succeeded]
    if not failed:
        return
    failures = [failure for outcome in failed for failure in outcome.failures]
    for failure in failures:
        _print_failure(failure, workspace)
    # A bug has its own log file; for anything else the log of the run is where to look.
    if not any(failure.trace for failure in failures):
        runs = ", ".join(outcome.run_id[:8] for outcome in failed)
        note(f"Run {runs}; `stella ui` shows its log. Artefacts that were made so far are kept.")
    sys.exit(2 if all(outcome.is_user_error for outcome in failed) else 1)


def _print_failure(failure: StepFailure, workspace: Workspace) -> None:
    text = f" {failure.asset}: {failure.message}"
    if failure.trace:
        log = write_log(workspace.root, f"{failure.asset}\n\n{failure.trace}")
        text += f" The traceback is in {log}"
    note(("failed", "bold red"), text)
