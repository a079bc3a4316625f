"""Jobs that do not make assets: promoting a release, and forgetting old runs. Their launchpads have one field each."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from stella_assets.core.runner import Runner
from stella_assets.pipelines.asset_factory import asset_key, failing_as_dagster_expects, launchpad_config
from stella_assets.recipe import Graph
from stella_assets.release.promotion import promote_newest

# A run that is queued or in progress is never deleted, however long ago it was updated.
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


class Promotion(dg.Config):
    """The field of the launchpad of a promotion."""

    name: str = Field(default="", description="Name of the release; empty for its date and a part of its key.")


def promotion_job(graph: Graph, tags: Mapping[str, str]) -> dg.JobDefinition:
    """The job that makes the recipe's newest release the active one, if its gate is open.

    Args:
        graph: Of the recipe.
        tags: Of its runs.
    """
    recipe = graph.recipe.name
    op = f"promote_newest_of_{recipe}"

    @dg.op(name=op, description="Makes the newest release the active one.")
    def promote_release(context: dg.OpExecutionContext, config: Promotion, runner: dg.ResourceParam[Runner]) -> None:
        own = runner.within(context.log)
        with failing_as_dagster_expects():
            record = promote_newest(own, release=graph.release, gate=graph.gate, name=config.name or None)
        context.log.info(f"{record['name']} is active now, at {own.workspace.releases / recipe / 'current'}")
        shown = {name: record[name] for name in ("name", "mean_score", "digest")}
        context.log_event(dg.AssetObservation(asset_key(recipe, graph.release.name), metadata=shown))

    @dg.job(
        name=f"promote_{recipe}",
        description=f"Makes the newest release of {recipe} the active one, if its gate is open.",
        tags=tags,
        config=launchpad_config(op, Promotion()),
    )
    def promote() -> None:
        promote_release()

    return promote


class Age(dg.Config):
    """The field of the launchpad of `forget_old_runs`."""

    days: int = Field(default=365, ge=0, description="Runs that ended longer ago are deleted, with their events.")


@dg.op
def forget_runs(context: dg.OpExecutionContext, config: Age) -> None:
    """Deletes runs, except those that made the current version of an asset or partition."""
    before = datetime.now(UTC) - timedelta(days=config.days)
    old = dg.RunsFilter(statuses=ENDED, updated_before=before)
    # Dagster derives the state and the data version of an asset from these events: without them it would be stale.
    current = set(_latest_runs(context.instance))
    deleted = [run.run_id for run in context.instance.get_runs(old) if run.run_id not in current]
    for run_id in deleted:
        context.instance.delete_run(run_id)
    context.log.info(f"deleted {len(deleted):,} runs that ended before {before:%Y-%m-%d %H:%M} UTC")


@dg.job(
    config=launchpad_config("forget_runs", Age()),
    description="Deletes runs that ended long ago. The latest run of each asset stays, and so does every artefact.",
)
def forget_old_runs() -> None:
    """Its schedule is off until it is turned on in the UI."""
    forget_runs()


forget_every_month = dg.ScheduleDefinition(
    name="forget_old_runs_every_month",
    job=forget_old_runs,
    cron_schedule="0 4 1 * *",
    description="On the first of each month. Off until it is turned on here.",
)


def _latest_runs(instance: dg.DagsterInstance) -> Iterator[str]:
    """The runs that made the latest version of each asset and partition."""
    for key in instance.all_asset_keys():
        # An asset without partitions counts once, as None.
        for partition in instance.get_materialized_partitions(key) or [None]:
            of = dg.AssetRecordsFilter(key, asset_partitions=[partition] if partition else None)
            for record in instance.fetch_materializations(of, limit=1).records:
                yield record.run_id
