"""The rows that a run writes for the view `runs`: what it did for each asset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stella_assets.core.errors import EXPECTED
from stella_assets.core.step import Artefact, Step
from stella_assets.core.tables import record_run
from stella_assets.storage.workspace import Workspace


@dataclass
class Record:
    """What a run did for one asset, so far."""

    artefact: Artefact | None = None


@contextmanager
def recorded(workspace: Workspace, run_id: str, step: Step[Any]) -> Iterator[Record]:
    """Add the outcome of the block to the record of the run.

    Args:
        workspace: Where records are kept.
        run_id: The run in the UI.
        step: What the block makes; it gives the artefact to the record.

    Yields:
        The record. A block that ends without an artefact counts as failed.

    Example:
        >>> with recorded(workspace, context.run_id, step) as record:
        ...     record.artefact = runner.make(step)
    """
    record, started, error = Record(), datetime.now(UTC), ""
    try:
        yield record
    # A bug has no message for people; its row says only that it did not succeed.
    except EXPECTED as refused:
        error = str(refused)
        raise
    finally:
        artefact = record.artefact
        row = {
            "run_id": run_id,
            "recipe": step.recipe,
            "asset": step.name,
            # UTC without an offset, the form that DuckDB reads as a timestamp.
            "started_at": started.replace(tzinfo=None).isoformat(sep=" "),
            "seconds": round((datetime.now(UTC) - started).total_seconds(), 3),
            # Not `error is empty`: a run that is interrupted has no error and no artefact.
            "succeeded": artefact is not None,
            "reused": artefact is not None and artefact.reused,
            "digest": artefact.digest if artefact else None,
            "peak_memory_mib": artefact.manifest.run_info["peak_memory_mib"] if artefact else None,
            "error": error or None,
        }
        record_run(workspace, run_id, row)
