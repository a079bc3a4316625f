"""What Dagster loads: every recipe's family of assets, a job each, and the workspace folder as a resource."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg
from storage.workspace import Workspace

from pipelines.jobs import forget_every_month, forget_old_runs, promotion_job
from pipelines.resources import launch_command, parallel_steps, prepare_environment, recipe_files
from stella_assets.assets import Launcher, asset_key
from stella_assets.corpus.assets import corpus_assets
from stella_assets.evaluation.assets import evaluation_assets
from stella_assets.recipe import Recipe, read_recipe
from stella_assets.redistil.assets import INPUTS, REDISTILLATION, redistil_assets, redistil_automation
from stella_assets.release.assets import release_assets
from stella_assets.study.assets import RUNS, STUDY, study_assets
from stella_assets.teachers.assets import teacher_assets
from stella_assets.training.assets import training_assets


def recipe_assets(recipe: Recipe) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """All assets of a recipe, in the order that data flows."""
    assets = [
        *corpus_assets(recipe),
        *teacher_assets(recipe),
        *training_assets(recipe),
        *evaluation_assets(recipe),
        *release_assets(recipe),
        *study_assets(recipe),
        *redistil_assets(recipe),
    ]
    return list(dg.map_asset_specs(lambda spec: spec.replace_attributes(owners=recipe.owners), assets))


def job_name(recipe: Recipe) -> str:
    """The job that materialises everything of a recipe."""
    return f"distil_{recipe.name}"


def study_job_name(recipe: Recipe, asset: str) -> str:
    """The job that materialises `study_runs` or `study`."""
    return f"{asset}_of_{recipe.name}"


def build_definitions(
    recipes: Sequence[Recipe], workspace: Workspace, loggers: Mapping[str, dg.LoggerDefinition] | None = None
) -> dg.Definitions:
    """Definitions of these recipes.

    Steps of a run share one process, so models and libraries are loaded once, unless `STELLA_PARALLEL` says otherwise.
    """
    jobs = [job for recipe in recipes for job in _jobs(recipe)]
    automation = [redistil_automation(recipe) for recipe in recipes]
    return dg.Definitions(
        assets=[asset for recipe in recipes for asset in recipe_assets(recipe)],
        jobs=[*jobs, forget_old_runs],
        schedules=[forget_every_month, *(schedule for schedules, _ in automation for schedule in schedules)],
        sensors=[sensor for _, sensors in automation for sensor in sensors],
        resources={"workspace": workspace, "launcher": Launcher(command=launch_command())},
        executor=_executor(),
        loggers=loggers,
    )


def _executor() -> dg.ExecutorDefinition:
    steps = parallel_steps()
    if steps == 1:
        return dg.in_process_executor
    return dg.multiprocess_executor.configured({"max_concurrent": steps, "start_method": {"spawn": {}}})


def _jobs(recipe: Recipe) -> list[dg.UnresolvedAssetJobDefinition | dg.JobDefinition]:
    tags = {"stella/recipe": recipe.name, "stella/seed": str(recipe.seed)}
    study = {name: dg.AssetSelection.keys(asset_key(recipe.name, name)) for name in (RUNS, STUDY)}
    others = [RUNS, STUDY, *((INPUTS, REDISTILLATION) if recipe.redistil else ())]
    apart = dg.AssetSelection.keys(*(asset_key(recipe.name, name) for name in others))
    everything = dg.AssetSelection.key_prefixes([recipe.name]) - apart
    return [
        dg.define_asset_job(job_name(recipe), selection=everything, description=recipe.description, tags=tags),
        *(
            dg.define_asset_job(study_job_name(recipe, name), selection=selection, tags=tags)
            for name, selection in study.items()
        ),
        promotion_job(recipe, tags),
    ]


@dg.definitions
def defs() -> dg.Definitions:
    """The code location."""
    return build_definitions([read_recipe(path) for path in recipe_files()], prepare_environment())
