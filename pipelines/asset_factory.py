"""From a step to a Dagster asset. Nothing here knows a particular step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

import dagster as dg

from stella_assets.core.errors import EXPECTED
from stella_assets.core.runner import Runner
from stella_assets.core.step import Artefact, Group, Presentation, Step
from stella_assets.pipelines.environment import workspace
from stella_assets.pipelines.launcher import Launcher
from stella_assets.pipelines.metadata import artefact_metadata, common_metadata
from stella_assets.pipelines.remedies import describe, full_disk
from stella_assets.pipelines.run_record import recorded

GROUPS: tuple[Group, ...] = get_args(Group)
"""In the order that data flows; the UI sorts groups by name, so the position is part of the name."""
USER_ERROR = "stella/user_error"
"""Metadata of a failed step that a person can correct; without it the failure is a bug."""


def asset_key(recipe: str, name: str) -> dg.AssetKey:
    """`<recipe>/<asset>`."""
    return dg.AssetKey([recipe, *name.split("/")])


def step_asset(step: Step[Any], finish: Callable[[Runner], None] | None = None) -> dg.AssetsDefinition:
    """The Dagster asset of a step.

    The artefact is found by content or made; the digest of its manifest is the data version. The settings are part of
    the asset's code version, so a changed recipe shows as out of date.

    Args:
        step: It has a presentation.
        finish: Called after the step was made.
    """
    key, shown = asset_key(step.recipe, step.name), presentation_of(step)

    @dg.asset(
        key=key,
        deps=[asset_key(step.recipe, name) for name in dict.fromkeys(s.name for s in _before(step))],
        group_name=f"{step.recipe}_{GROUPS.index(shown.group) + 1}_{shown.group}",
        kinds=set(shown.kinds),
        description=shown.description,
        code_version=step.version,
        check_specs=[
            dg.AssetCheckSpec(check.name, asset=key, description=check.description, blocking=check.blocking)
            for check in shown.checks
        ],
        tags={"stella/recipe": step.recipe},
        op_tags={"dagster/priority": str(step.priority)} if step.priority else None,
        pool=step.pool,
    )
    def make_artefact(
        context: dg.AssetExecutionContext, runner: dg.ResourceParam[Runner], launcher: Launcher
    ) -> dg.MaterializeResult:
        own = runner.within(context.log, launcher.within(context))
        made_before = len(own.made)
        with failing_as_dagster_expects(), recorded(own.workspace, context.run_id, step) as record:
            artefact = record.artefact = own.make(step)
        for part, made in own.made[made_before:]:
            if part is not step:  # e.g. the score of one task: the UI lists it under a name of its own
                context.log_event(materialization(part, made))
        if finish is not None:
            finish(own)
        verb = "reused, nothing to do" if artefact.reused else f"made in {artefact.manifest.run_info['seconds']:.1f} s"
        context.log.info(f"{step.name}: {verb} ({artefact.digest[:12]})")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(artefact.digest),
            metadata=artefact_metadata(artefact, shown),
            check_results=_check_results(artefact),
        )

    return make_artefact


def materialization(step: Step[Any], artefact: Artefact) -> dg.AssetMaterialization:
    """The event that shows the artefact of a step that Dagster did not execute as an asset itself."""
    return dg.AssetMaterialization(
        asset_key(step.recipe, step.name),
        metadata=common_metadata(artefact),
        tags={"dagster/data_version": artefact.digest, "dagster/code_version": step.version},
    )


def presentation_of(step: Step[Any]) -> Presentation:
    """How a step shows itself.

    Raises:
        TypeError: It does not, because it is a part of another step.
    """
    if step.presentation is None:
        raise TypeError(f"{step.name} has no presentation, so it is not an asset")
    return step.presentation


@contextmanager
def failing_as_dagster_expects() -> Iterator[None]:
    """Turn errors that a person can correct into a failure that is marked so, and that is not retried."""
    try:
        yield
    except Exception as error:
        wrong = error if isinstance(error, EXPECTED) else full_disk(error, workspace().root)
        if wrong is None:
            raise
        raise dg.Failure(description=describe(wrong), metadata={USER_ERROR: True}, allow_retries=False) from error


def launchpad_config(op: str, config: dg.Config) -> dict[str, Any]:
    """What a job's launchpad shows at first, to be changed."""
    return {"ops": {op: {"config": config.model_dump()}}}


def _before(step: Step[Any]) -> tuple[Step[Any], ...]:
    return (*step.dependencies, *step.order_after)


def _check_results(artefact: Artefact) -> list[dg.AssetCheckResult]:
    return [
        dg.AssetCheckResult(
            check_name=check.name,
            passed=check.passed,
            description=check.description,
            metadata={name: float(value) for name, value in check.figures.items()},
        )
        for check in artefact.manifest.checks
    ]
