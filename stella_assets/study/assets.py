"""The assets `study_runs`, a partition a variant and seed, and `study`, which compares them."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from storage.workspace import Workspace

from stella_assets.assets import Launcher, asset_key, picture, recorded
from stella_assets.core.step import Runner
from stella_assets.recipe import Recipe
from stella_assets.study.study import PLOT_FILES, TABLE_FILE, study_step, variant_steps
from stella_assets.study.variants import Variant
from storage.statistics import refresh_views

RUNS, STUDY = "study_runs", "study"


def study_partitions(recipe: Recipe) -> dg.DynamicPartitionsDefinition:
    """The variants of a recipe, by name; the command line adds them, and so can the UI."""
    return dg.DynamicPartitionsDefinition(name=partitions_name(recipe))


def partitions_name(recipe: Recipe) -> str:
    """What Dagster's instance keeps the variants' names under."""
    return f"{recipe.name}_study"


def study_assets(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """Runs and comparison of a recipe's variants."""
    group, tags = f"{recipe.name}_6_study", {"stella/recipe": recipe.name}

    @dg.asset(
        key=asset_key(recipe.name, RUNS),
        partitions_def=study_partitions(recipe),
        group_name=group,
        kinds={"pytorch"},
        pool="training",
        tags=tags,
        description="The recipe with some values changed, a partition `PATH=VALUE; seed=N`. What a change does not "
        "reach is reused.",
    )
    def study_runs(
        context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace], launcher: Launcher
    ) -> dg.MaterializeResult:
        variant = Variant.parse(context.partition_key)
        runner = Runner(workspace, context.log, launcher.within(context), links=False)
        for step in variant_steps(recipe, variant):
            with recorded(workspace, context.run_id, step) as record:
                scored = record.artefact = runner.make(step)
        means = {f"mean_{dim}": mean for dim, mean in _means(scored.manifest.metrics["scores"]).items()}
        context.log.info(f"{variant.name}: " + ", ".join(f"{name} {100 * mean:.2f}" for name, mean in means.items()))
        return dg.MaterializeResult(data_version=dg.DataVersion(scored.digest), metadata=means)

    @dg.asset(
        key=asset_key(recipe.name, STUDY),
        deps=[dg.AssetDep(study_runs, partition_mapping=dg.AllPartitionMapping())],
        group_name=group,
        kinds={"duckdb"},
        tags=tags,
        description="Scores of the variants that were run, with mean and spread over seeds.",
    )
    def study(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
        names = context.instance.get_dynamic_partitions(partitions_name(recipe))
        step = study_step(recipe, [Variant.parse(name) for name in names], workspace)
        with recorded(workspace, context.run_id, step) as record:
            artefact = record.artefact = Runner(workspace, context.log).make(step)
        refresh_views(workspace)
        pictures = {name: picture((artefact.folder / file).read_bytes(), name) for name, file in PLOT_FILES.items()}
        return dg.MaterializeResult(
            data_version=dg.DataVersion(artefact.digest),
            metadata={
                "comparison": dg.MetadataValue.md((artefact.folder / TABLE_FILE).read_text(encoding="utf-8")),
                **pictures,
                "folder": dg.MetadataValue.path(str(artefact.folder)),
            },
        )

    return [study_runs, study]


def _means(scores: list[Mapping[str, Any]]) -> dict[int, float]:
    """Mean over tasks by dimension."""
    by_dimension: dict[int, list[float]] = {}
    for row in scores:
        by_dimension.setdefault(row["dimension"], []).append(row["score"])
    return {dimension: sum(values) / len(values) for dimension, values in by_dimension.items()}
