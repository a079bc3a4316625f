"""What Dagster loads: every recipe's family of assets, a job each, and the home folder as a resource."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from pipelines.resources import launch_command, prepare_environment, recipe_files
from stella_assets.assets import Launcher
from stella_assets.corpus.assets import corpus_assets
from stella_assets.evaluation.assets import evaluation_assets
from stella_assets.recipe import Recipe, read_recipe
from stella_assets.release.assets import release_assets
from stella_assets.teachers.assets import teacher_assets
from stella_assets.training.assets import training_assets
from storage.home import Home


def recipe_assets(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """All assets of a recipe, in the order that data flows."""
    return [
        *corpus_assets(recipe),
        *teacher_assets(recipe),
        *training_assets(recipe),
        *evaluation_assets(recipe),
        *release_assets(recipe),
    ]


def job_name(recipe: Recipe) -> str:
    """The job that materialises everything of a recipe."""
    return f"distil_{recipe.name}"


def build_definitions(
    recipes: Sequence[Recipe], home: Home, loggers: Mapping[str, dg.LoggerDefinition] | None = None
) -> dg.Definitions:
    """Definitions of these recipes. Steps of a run share one process: models and libraries are loaded once."""
    jobs = [
        dg.define_asset_job(
            job_name(recipe),
            selection=dg.AssetSelection.key_prefixes([recipe.name]),
            description=recipe.description,
            tags={"stella/recipe": recipe.name, "stella/seed": str(recipe.seed)},
        )
        for recipe in recipes
    ]
    return dg.Definitions(
        assets=[asset for recipe in recipes for asset in recipe_assets(recipe)],
        jobs=jobs,
        resources={"home": home, "launcher": Launcher(command=launch_command())},
        executor=dg.in_process_executor,
        loggers=loggers,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The code location."""
    return build_definitions([read_recipe(path) for path in recipe_files()], prepare_environment())
