"""The assets `study_runs`, one partition per variant and seed, and `study`, which compares them."""

import dagster as dg

from stella_assets.core.runner import Runner
from stella_assets.pipelines.asset_factory import asset_key, failing_as_dagster_expects, presentation_of
from stella_assets.pipelines.launcher import Launcher
from stella_assets.pipelines.metadata import artefact_metadata
from stella_assets.pipelines.run_record import recorded
from stella_assets.recipe import Graph, Recipe
from stella_assets.study import STUDY_ASSET
from stella_assets.study.study import mean_scores, study_step, variant_steps
from stella_assets.study.variants import Variant

STUDY_RUNS = "study_runs"


def partitions_name(recipe: Recipe) -> str:
    """The name under which Dagster's instance keeps the variants; the command line adds them, and so can the UI."""
    return f"{recipe.name}_study"


def study_assets(graph: Graph) -> list[dg.AssetsDefinition]:
    """Runs and comparison of a recipe's variants.

    Args:
        graph: Of the recipe.
    """
    recipe = graph.recipe
    group, tags = f"{recipe.name}_6_study", {"stella/recipe": recipe.name}

    @dg.asset(
        key=asset_key(recipe.name, STUDY_RUNS),
        partitions_def=dg.DynamicPartitionsDefinition(name=partitions_name(recipe)),
        group_name=group,
        kinds={"pytorch"},
        # The only asset of the study that trains; its steps are not assets, so they have no pool of their own.
        pool="training",
        tags=tags,
        description="The recipe with some values changed, one partition per variant: `PATH=VALUE; seed=N`. Artefacts "
        "that a change does not affect are reused.",
    )
    def study_runs(
        context: dg.AssetExecutionContext, runner: dg.ResourceParam[Runner], launcher: Launcher
    ) -> dg.MaterializeResult:
        own = runner.within(context.log, launcher.within(context))
        with failing_as_dagster_expects():
            variant = Variant.parse(context.partition_key)
            for step in variant_steps(recipe, variant):
                with recorded(own.workspace, context.run_id, step) as record:
                    # Without a link: the recipe keeps what it has. The last step is the scores.
                    scored = record.artefact = own.make(step, link=False)
        means = {f"mean_{dim}": mean for dim, mean in mean_scores(scored).items()}
        context.log.info(f"{variant.name}: " + ", ".join(f"{name} {100 * mean:.2f}" for name, mean in means.items()))
        return dg.MaterializeResult(data_version=dg.DataVersion(scored.digest), metadata=means)

    @dg.asset(
        key=asset_key(recipe.name, STUDY_ASSET),
        # Of all partitions: `study` compares every variant that was ever run.
        deps=[dg.AssetDep(study_runs, partition_mapping=dg.AllPartitionMapping())],
        group_name=group,
        kinds={"duckdb"},
        tags=tags,
        description="Scores of the variants that were run, with mean and standard deviation over seeds.",
    )
    def study(context: dg.AssetExecutionContext, runner: dg.ResourceParam[Runner]) -> dg.MaterializeResult:
        own = runner.within(context.log)
        with failing_as_dagster_expects():
            # Also variants that were added but not run; the step leaves them out.
            names = context.instance.get_dynamic_partitions(partitions_name(recipe))
            step = study_step(recipe, [Variant.parse(name) for name in names], own)
            with recorded(own.workspace, context.run_id, step) as record:
                artefact = record.artefact = own.make(step)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(artefact.digest), metadata=artefact_metadata(artefact, presentation_of(step))
        )

    return [study_runs, study]
