"""The assets `inputs` and `redistillation`, with the schedule and the sensors that start a re-distillation."""

from datetime import UTC, datetime, timedelta

import dagster as dg
from croniter import croniter
from pydantic import Field

from stella_assets.core.errors import EXPECTED
from stella_assets.core.present import Rows
from stella_assets.core.runner import Runner
from stella_assets.pipelines.asset_factory import asset_key, launchpad_config
from stella_assets.pipelines.metadata import to_metadata
from stella_assets.recipe import Graph, Recipe, Redistil
from stella_assets.redistil.ledger import Entry, Ledger
from stella_assets.redistil.redistil import inputs_of, redistil
from stella_assets.storage.canonical import digest
from stella_assets.storage.workspace import Workspace

INPUTS, REDISTILLATION = "inputs", "redistillation"
# Not blocking: a rejected student is shown, and nothing comes after it.
CHECK = "the_newest_release_is_active"
SHOWN_ENTRIES = 12
"""Entries of the ledger that the UI shows."""
MAX_RETRIES = 3
WATCH_INTERVAL = 300
"""Seconds between two looks at sources and teachers."""


class RunConfig(dg.Config):
    """The field of the launchpad of a re-distillation."""

    force: bool = Field(default=False, description="Train even if little or nothing is new.")


def redistil_assets(graph: Graph) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """The inputs of a recipe and its re-distillation; empty where the recipe does not ask for it.

    Args:
        graph: Of the recipe.
    """
    settings = graph.recipe.redistil
    if settings is None:
        return []
    name = graph.recipe.name
    group, tags = f"{name}_7_redistillation", {"stella/recipe": name}
    inputs = dg.AssetSpec(
        key=asset_key(name, INPUTS),
        group_name=group,
        tags=tags,
        description="Sources, teachers and recipe. A sensor records a data version when they change.",
    )

    @dg.asset(
        key=asset_key(name, REDISTILLATION),
        deps=[inputs],
        group_name=group,
        kinds={"pytorch", "huggingface"},
        tags=tags,
        description="Embeds new texts, continues training from the active release, and promotes what passes the gate. "
        "The steps run in runs of their own.",
        check_specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset=asset_key(name, REDISTILLATION),
                description="The gate was open, and the mean score is not below that of the active release.",
            )
        ],
        automation_condition=when_inputs_change() if settings.watch else None,
        # Two whole intervals: one run that is late or still training is no reason to warn.
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=2 * period(settings)),
    )
    def redistillation(
        context: dg.AssetExecutionContext, config: RunConfig, runner: dg.ResourceParam[Runner]
    ) -> dg.MaterializeResult:
        from stella_assets.pipelines.launch import Launch  # it loads the definitions, which load this module

        own = runner.within(context.log)
        steps = Launch(graph, own, context.instance, parent=context.run_id)
        try:
            entry = redistil(graph, own, make_all=steps.make_all, force=config.force)
        except OSError as error:  # a disk, a network or an object store, which may be there again in a minute
            raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=60) from error
        if entry.verdict == "failed":
            # The input is to blame, so a retry would fail again; the next run of the schedule tries it.
            raise dg.Failure(description=entry.why, allow_retries=False)
        return _result(entry, Ledger(own.workspace, name).entries()[-SHOWN_ENTRIES:])

    return [inputs, redistillation]


def _result(entry: Entry, latest: list[Entry]) -> dg.MaterializeResult:
    """What the UI shows of a re-distillation."""
    shown = [
        {"at": e.started_at, "verdict": e.verdict, "why": e.why, "active": e.release or ""} for e in reversed(latest)
    ]
    figures = {"new_texts": entry.new_texts, "embedded": entry.embedded, "seconds": entry.seconds}
    return dg.MaterializeResult(
        # The version that `watch` records for the same inputs.
        data_version=dg.DataVersion(digest(dict(entry.inputs))),
        metadata={
            "verdict": entry.verdict,
            "why": entry.why,
            "latest": to_metadata(Rows(shown)),
            **figures,
            **({"score": entry.score} if entry.score is not None else {}),
            "active": entry.release or "none",
        },
        check_results=[
            dg.AssetCheckResult(check_name=CHECK, passed=entry.verdict != "rejected", description=entry.why)
        ],
    )


def when_inputs_change() -> dg.AutomationCondition:
    """At first, then once for each data version of the inputs, and never while a run is in progress.

    Returns:
        A condition for the asset `redistillation`.
    """
    changed = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed())
    # Both conditions hold for one tick only; `since` keeps them until the asset was requested or updated.
    due = dg.AutomationCondition.newly_missing() | changed
    handled = dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated()
    return due.since(handled) & ~dg.AutomationCondition.in_progress()


def period(settings: Redistil) -> timedelta:
    """Half of the time that two intervals of the schedule take: a mean length where they are not equal.

    Args:
        settings: With a valid cron expression.

    Example:
        >>> period(Redistil(schedule="0 3 * * 1"))
        datetime.timedelta(days=7)
    """
    times = croniter(settings.schedule, datetime(2024, 1, 1, tzinfo=UTC))
    # Two intervals from any date: with two times per day or week, one interval would be the short or the long one.
    first = times.get_next(datetime)
    times.get_next(datetime)
    return (times.get_next(datetime) - first) / 2


def redistil_job_name(recipe: Recipe) -> str:
    """The job that re-distils a recipe."""
    return f"redistil_{recipe.name}"


def redistil_automation(graph: Graph) -> tuple[list[dg.ScheduleDefinition], list[dg.SensorDefinition]]:
    """The schedule of a recipe, and the sensors on its inputs. They run as soon as the daemon does.

    Args:
        graph: Of the recipe.

    Returns:
        Schedules and sensors; both empty where the recipe does not ask for re-distillation.
    """
    recipe, settings = graph.recipe, graph.recipe.redistil
    if settings is None:
        return [], []
    key = asset_key(recipe.name, REDISTILLATION)
    tags = {"stella/recipe": recipe.name}
    job = dg.define_asset_job(
        redistil_job_name(recipe),
        selection=dg.AssetSelection.assets(key),
        tags=tags,
        config=launchpad_config(key.to_python_identifier(), RunConfig()),
    )
    schedule = dg.ScheduleDefinition(
        name=f"{redistil_job_name(recipe)}_on_schedule",
        job=job,
        cron_schedule=settings.schedule,
        execution_timezone=settings.timezone,
        # The recipe asks for it; a switch in the UI as well would be forgotten.
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"{settings.schedule}, {settings.timezone}",
    )
    if not settings.watch:
        return [schedule], []
    request = dg.AutomationConditionSensorDefinition(
        name=f"{redistil_job_name(recipe)}_when_inputs_change",
        target=dg.AssetSelection.assets(key),
        default_status=dg.DefaultSensorStatus.RUNNING,
        run_tags=tags,
    )
    return [schedule], [_watch(graph), request]


def _watch(graph: Graph) -> dg.SensorDefinition:
    key = asset_key(graph.recipe.name, INPUTS)

    @dg.sensor(
        name=f"{redistil_job_name(graph.recipe)}_watch",
        minimum_interval_seconds=WATCH_INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Records a data version of sources and teachers when they change.",
    )
    def watch(
        context: dg.SensorEvaluationContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.SensorResult | dg.SkipReason:
        try:
            inputs = inputs_of(graph, workspace)
        except (*EXPECTED, OSError) as error:  # unavailable for now; the last version that was seen remains
            return dg.SkipReason(f"cannot be read: {error}")
        version = digest(inputs)
        # An event per look would fill the event log, and each one would look like a change.
        if context.cursor == version:
            return dg.SkipReason("sources, teachers and recipe have not changed")
        seen = dg.AssetMaterialization(key, tags={"dagster/data_version": version}, metadata=dict(inputs))
        return dg.SensorResult(asset_events=[seen], cursor=version)

    return watch
