"""How a run ended: what failed, why, and whether a person can correct it."""

from __future__ import annotations

from dataclasses import dataclass

import dagster as dg
from dagster._core.errors import DagsterAssetCheckFailedError, DagsterExecutionInterruptedError
from dagster._utils.error import SerializableErrorInfo

from stella_assets.pipelines.asset_factory import USER_ERROR

# Errors of a run arrive serialised: their classes are known by name only.
CLOSED = DagsterAssetCheckFailedError.__name__
INTERRUPTED = DagsterExecutionInterruptedError.__name__


@dataclass(frozen=True)
class StepFailure:
    """A step that failed.

    Attributes:
        asset: Its name.
        message: What went wrong; with the remedy, where a person can correct it.
        is_user_error: Whether a person can correct it.
        trace: The traceback of a bug; empty otherwise.
    """

    asset: str
    message: str
    is_user_error: bool = False
    trace: str = ""


@dataclass(frozen=True)
class FailedCheck:
    """A check that did not pass."""

    asset: str
    check: str
    found: str


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run_id: The run in the UI; empty where nothing had to be executed.
        succeeded: Whether every asset was made.
        failures: Steps that failed.
        failed_checks: Checks that did not pass.
    """

    run_id: str
    succeeded: bool
    failures: tuple[StepFailure, ...] = ()
    failed_checks: tuple[FailedCheck, ...] = ()

    @property
    def is_user_error(self) -> bool:
        """Whether a person can correct all that failed."""
        return bool(self.failures) and all(failure.is_user_error for failure in self.failures)


def outcome_of(result: dg.ExecuteInProcessResult) -> Outcome:
    """How a run in this process ended.

    Args:
        result: Of the run, which need not have succeeded.
    """
    return Outcome(
        run_id=result.run_id,
        succeeded=result.success,
        failures=tuple(_failure(event) for event in result.all_events if event.is_step_failure),
        failed_checks=tuple(
            # Without the first part, which is the recipe.
            FailedCheck("/".join(check.asset_key.path[1:]), check.check_name, check.description or "")
            for check in result.get_asset_check_evaluations()
            if not check.passed
        ),
    )


def _failure(event: dg.DagsterEvent) -> StepFailure:
    # Dagster's name of an op: asset keys joined by `__`.
    asset = (event.step_key or "").replace("__", "/")
    data = event.step_failure_data
    marked = data.user_failure_data
    if marked is not None and USER_ERROR in marked.metadata:
        return StepFailure(asset, marked.description or "", is_user_error=True)
    error = data.error
    if error is None:
        return StepFailure(asset, "failed without an error")
    if error.cls_name == CLOSED:
        return StepFailure(asset, "its checks failed, so what comes after was not made.")
    # Dagster may wrap an interruption like any other error of a step, so the cause counts, too.
    if INTERRUPTED in (error.cls_name, error.cause.cls_name if error.cause else None):
        return StepFailure(asset, "interrupted; run again to continue where it stopped.")
    raised = error.cause or error  # Dagster wraps what a step raises
    return StepFailure(asset, raised.message.strip().splitlines()[0], trace=_traceback(raised))


def _traceback(error: SerializableErrorInfo) -> str:
    """The traceback as Python prints it, the cause first."""
    own = "Traceback (most recent call last):\n" + "".join(error.stack) + error.message
    if error.cause:
        return f"{_traceback(error.cause)}\nThe above exception was the direct cause of the following one:\n\n{own}"
    if error.context:
        return f"{_traceback(error.context)}\nDuring handling of the above exception, another one occurred:\n\n{own}"
    return own
