"""The assets `inputs`, what a recipe rests on, and `redistillation`, which does it all again when that changes."""

from datetime import UTC, datetime, timedelta

import dagster as dg
from croniter import croniter
from pydantic import Field
from storage.workspace import Workspace

from stella_assets.assets import Launcher, asset_key, filled_in, materialisation, table
from stella_assets.core.manifest import digest
from stella_assets.core.step import Runner, all_steps
from stella_assets.recipe import Recipe, Redistil
from stella_assets.redistil.ledger import Ledger
from stella_assets.redistil.redistil import inputs_of, redistil
from stella_assets.release.publish import release_step
from storage.statistics import refresh_views

INPUTS, REDISTILLATION = "inputs", "redistillation"
LATEST = 12
"""Lines of the ledger that the UI shows."""
MAX_RETRIES = 3
WATCH_EVERY = 300
"""Seconds between two looks at sources and teachers."""


class RunConfig(dg.Config):
    """What a person fills in to start a re-distillation."""

    force: bool = Field(default=False, description="Train although nothing, or little, is new.")


def redistil_assets(recipe: Recipe) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """What a recipe rests on, as seen from outside, and its re-distillation; none where the recipe asks for none."""
    settings = recipe.redistil
    if settings is None:
        return []
    group, tags = f"{recipe.name}_7_redistillation", {"stella/recipe": recipe.name}
    inputs = dg.AssetSpec(
        key=asset_key(recipe.name, INPUTS),
        group_name=group,
        tags=tags,
        description="Sources, teachers and recipe. A sensor looks at them and notes a data version when they change.",
    )

    @dg.asset(
        key=asset_key(recipe.name, REDISTILLATION),
        deps=[inputs],
        group_name=group,
        kinds={"pytorch", "huggingface"},
        pool="training",
        tags=tags,
        description="Embeds what is new, trains on from what is released, and serves what passes the gate.",
        check_specs=[
            dg.AssetCheckSpec(
                "what_is_served_is_the_newest",
                asset=asset_key(recipe.name, REDISTILLATION),
                description="The gate was open, and the mean is not below what is released.",
            )
        ],
        automation_condition=when_inputs_change() if settings.watch else None,
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=2 * period(settings)),
    )
    def redistillation(
        context: dg.AssetExecutionContext, config: RunConfig, workspace: dg.ResourceParam[Workspace], launcher: Launcher
    ) -> dg.MaterializeResult:
        runner = Runner(workspace, context.log, launcher.within(context))
        try:
            entry = redistil(recipe, runner, force=config.force)
        except OSError as error:  # a disk, a network, an object store: it may be there again in a minute
            raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=60) from error
        finally:
            steps = {step.name: step for step in all_steps(release_step(recipe))}
            for artefact in runner.made:
                if artefact.name in steps:  # single scores are no assets
                    context.log_event(materialisation(steps[artefact.name], artefact))
        refresh_views(workspace)
        if entry.verdict == "failed":
            raise dg.Failure(description=entry.why, allow_retries=False)
        entries = Ledger(workspace, recipe.name).entries()[-LATEST:]
        shown = [
            {"at": e.started_at, "verdict": e.verdict, "why": e.why, "served": e.release or ""}
            for e in reversed(entries)
        ]
        figures = {"new_texts": entry.new_texts, "embedded": entry.embedded, "seconds": entry.seconds}
        return dg.MaterializeResult(
            data_version=dg.DataVersion(digest(dict(entry.inputs))),
            metadata={
                "verdict": entry.verdict,
                "why": entry.why,
                "latest": table(shown),
                **figures,
                **({"score": entry.score} if entry.score is not None else {}),
                "served": entry.release or "nothing",
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="what_is_served_is_the_newest",
                    passed=entry.verdict != "rejected",
                    description=entry.why,
                )
            ],
        )

    return [inputs, redistillation]


def when_inputs_change() -> dg.AutomationCondition:
    """At first, then once for each data version of the inputs, and never while it is being done."""
    changed = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed())
    due = dg.AutomationCondition.newly_missing() | changed
    handled = dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated()
    return due.since(handled) & ~dg.AutomationCondition.in_progress()


def period(settings: Redistil) -> timedelta:
    """From one time of the schedule to the next but one, halved: a fair length where they are not evenly spread."""
    times = croniter(settings.schedule, datetime(2024, 1, 1, tzinfo=UTC))
    first = times.get_next(datetime)
    times.get_next(datetime)
    return (times.get_next(datetime) - first) / 2


def redistil_job_name(recipe: Recipe) -> str:
    """The job that re-distils a recipe."""
    return f"redistil_{recipe.name}"


def redistil_automation(
    recipe: Recipe,
) -> tuple[list[dg.ScheduleDefinition], list[dg.SensorDefinition]]:
    """The schedule of a recipe, and what watches its inputs. They run as soon as the daemon does."""
    settings = recipe.redistil
    if settings is None:
        return [], []
    key = asset_key(recipe.name, REDISTILLATION)
    tags = {"stella/recipe": recipe.name}
    job = dg.define_asset_job(
        redistil_job_name(recipe),
        selection=dg.AssetSelection.assets(key),
        tags=tags,
        config=filled_in(key.to_python_identifier(), RunConfig()),
    )
    schedule = dg.ScheduleDefinition(
        name=f"{redistil_job_name(recipe)}_on_schedule",
        job=job,
        cron_schedule=settings.schedule,
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"{settings.schedule}, {settings.timezone}",
    )
    if not settings.watch:
        return [schedule], []
    acts = dg.AutomationConditionSensorDefinition(
        name=f"{redistil_job_name(recipe)}_when_inputs_change",
        target=dg.AssetSelection.assets(key),
        default_status=dg.DefaultSensorStatus.RUNNING,
        run_tags=tags,
    )
    return [schedule], [_watch(recipe), acts]


def _watch(recipe: Recipe) -> dg.SensorDefinition:
    key = asset_key(recipe.name, INPUTS)

    @dg.sensor(
        name=f"{redistil_job_name(recipe)}_watch",
        minimum_interval_seconds=WATCH_EVERY,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notes the data version of sources and teachers when it changes.",
    )
    def watch(
        context: dg.SensorEvaluationContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.SensorResult | dg.SkipReason:
        try:
            inputs = inputs_of(recipe, workspace)
        except (ValueError, OSError) as error:  # gone for now; what was seen before still stands
            return dg.SkipReason(f"cannot be looked at: {error}")
        version = digest(inputs)
        if context.cursor == version:
            return dg.SkipReason("sources, teachers and recipe are as they were")
        seen = dg.AssetMaterialization(key, tags={"dagster/data_version": version}, metadata=dict(inputs))
        return dg.SensorResult(asset_events=[seen], cursor=version)

    return watch
