"""Jobs that make no assets: serving a release, and forgetting old runs. Their launchpads have a field or two."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field
from storage.workspace import Workspace

from stella_assets.assets import asset_key, filled_in
from stella_assets.core.step import Runner
from stella_assets.recipe import Recipe
from stella_assets.release.promote import promote_newest

ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


class Promotion(dg.Config):
    """What can be filled in to promote a release."""

    name: str = Field(default="", description="What to call the release; empty: the date and a part of its key.")


def promotion_job(recipe: Recipe, tags: Mapping[str, str]) -> dg.JobDefinition:
    """The job that serves the recipe's newest release, if its gate is open."""

    op = f"serve_newest_of_{recipe.name}"

    @dg.op(name=op, description="Serves the newest release from now on.")
    def serve_newest(context: dg.OpExecutionContext, config: Promotion, workspace: dg.ResourceParam[Workspace]) -> None:
        record = promote_newest(recipe, Runner(workspace, context.log), config.name or None)
        context.log.info(f"{record['name']} is served now, at {workspace.releases / recipe.name / 'current'}")
        shown = {name: record[name] for name in ("name", "mean_score", "digest")}
        context.log_event(dg.AssetObservation(asset_key(recipe.name, "release"), metadata=shown))

    @dg.job(
        name=f"promote_{recipe.name}",
        description=f"Serves the newest release of {recipe.name} from now on, if its gate is open.",
        tags=tags,
        config=filled_in(op, Promotion()),
    )
    def promote() -> None:
        serve_newest()

    return promote


class Age(dg.Config):
    """What can be filled in to forget runs."""

    days: int = Field(default=365, ge=0, description="Runs that ended longer ago than this go, with their events.")


@dg.op
def forget_runs(context: dg.OpExecutionContext, config: Age) -> None:
    """Forgets runs, but for those that made what an asset, or a partition of one, is now."""
    before = datetime.now(UTC) - timedelta(days=config.days)
    old = dg.RunsFilter(statuses=ENDED, updated_before=before)
    wanted = set(_latest_makers(context.instance))
    gone = [run.run_id for run in context.instance.get_runs(old) if run.run_id not in wanted]
    for run_id in gone:
        context.instance.delete_run(run_id)
    context.log.info(f"forgot {len(gone):,} runs that ended before {before:%Y-%m-%d %H:%M} UTC")


@dg.job(
    config=filled_in("forget_runs", Age()),
    description="Forgets runs that ended long ago. What assets are now stays, and so does every artefact.",
)
def forget_old_runs() -> None:
    """Its schedule is off until somebody turns it on."""
    forget_runs()


forget_every_month = dg.ScheduleDefinition(
    name="forget_old_runs_every_month",
    job=forget_old_runs,
    cron_schedule="0 4 1 * *",
    description="On the first of a month. Off until somebody turns it on.",
)


def _latest_makers(instance: dg.DagsterInstance) -> Iterator[str]:
    """The runs of the latest materialisation of each asset and partition."""
    for key in instance.all_asset_keys():
        for partition in instance.get_materialized_partitions(key) or [None]:
            of = dg.AssetRecordsFilter(key, asset_partitions=[partition] if partition else None)
            for record in instance.fetch_materializations(of, limit=1).records:
                yield record.run_id
