"""What Dagster loads: one asset per step of every recipe, the jobs, and the resources."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from stella_assets.core.markup import markdown_text
from stella_assets.core.runner import Runner
from stella_assets.pipelines.asset_factory import asset_key, step_asset
from stella_assets.pipelines.environment import (
    compute,
    launch_command,
    parallel_steps,
    prepare_environment,
)
from stella_assets.pipelines.jobs import forget_every_month, forget_old_runs, promotion_job
from stella_assets.pipelines.launcher import Launcher
from stella_assets.pipelines.project import recipe_files
from stella_assets.pipelines.redistillation import redistil_assets, redistil_automation
from stella_assets.pipelines.selection import prune_links
from stella_assets.pipelines.study import STUDY_RUNS, study_assets
from stella_assets.recipe import Graph, Recipe, read_recipe
from stella_assets.storage.workspace import Workspace
from stella_assets.study import STUDY_ASSET


def recipe_assets(graph: Graph) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """All assets of a recipe.

    Args:
        graph: Of the recipe.

    Returns:
        One asset per step, then those of the study and of re-distillation; all have the owners of the recipe.
    """

    def finish(runner: Runner) -> None:
        prune_links(graph, runner)

    # Links are pruned once per run, after the release, which comes last.
    steps = [step_asset(step, finish=finish if step is graph.release else None) for step in graph.steps]
    assets = [*steps, *study_assets(graph), *redistil_assets(graph)]
    return list(dg.map_asset_specs(lambda spec: spec.replace_attributes(owners=graph.recipe.owners), assets))


def job_name(recipe: Recipe) -> str:
    """The job that materialises everything of a recipe."""
    return f"distil_{recipe.name}"


def study_job_name(recipe: Recipe, asset: str) -> str:
    """The job that materialises `study_runs` or `study`."""
    return f"{asset}_of_{recipe.name}"


def build_definitions(
    graphs: Sequence[Graph],
    workspace: Workspace,
    runner: Runner | None = None,
    loggers: Mapping[str, dg.LoggerDefinition] | None = None,
) -> dg.Definitions:
    """Definitions of these recipes.

    Steps of a run share one process, so models and libraries are loaded once, unless `STELLA_PARALLEL` is above 1.

    Args:
        graphs: One per recipe.
        workspace: Where state is kept.
        runner: Makes the artefacts; left out, each run has its own, and refreshes the SQL views when it ends.
        loggers: In addition to Dagster's own.
    """
    automation = [redistil_automation(graph) for graph in graphs]
    return dg.Definitions(
        assets=[asset for graph in graphs for asset in recipe_assets(graph)],
        jobs=[*(job for graph in graphs for job in _jobs(graph)), forget_old_runs],
        schedules=[forget_every_month, *(schedule for schedules, _ in automation for schedule in schedules)],
        sensors=[sensor for _, sensors in automation for sensor in sensors],
        resources={
            "workspace": workspace,
            "launcher": Launcher(command=launch_command()),
            # A runner remembers what it found; one that outlives a run would not see what other runs removed.
            "runner": runner or _runner_of_a_run(workspace),
        },
        executor=_executor(),
        loggers=loggers,
    )


def _runner_of_a_run(workspace: Workspace) -> dg.ResourceDefinition:
    """A runner for the steps of one run in one process; afterwards the views show what the run made."""

    @dg.resource
    def runner(_context: dg.InitResourceContext) -> Iterator[Any]:
        try:
            yield Runner(workspace, logging.getLogger("stella"), compute())
        finally:
            from stella_assets.pipelines.views import refresh_views

            refresh_views(workspace)

    return runner


def _executor() -> dg.ExecutorDefinition:
    steps = parallel_steps()
    if steps == 1:
        # One process loads torch and the models once; a process per step would load them for each step.
        return dg.in_process_executor
    # `spawn`, since CUDA and the threads of lance do not survive a fork.
    return dg.multiprocess_executor.configured({"max_concurrent": steps, "start_method": {"spawn": {}}})


def _jobs(graph: Graph) -> list[dg.UnresolvedAssetJobDefinition | dg.JobDefinition]:
    recipe = graph.recipe
    tags = {"stella/recipe": recipe.name, "stella/seed": str(recipe.seed)}
    everything = dg.AssetSelection.assets(*(asset_key(recipe.name, step.name) for step in graph.steps))
    # In two jobs: a run materialises one partition, and `study` has none.
    study = {name: dg.AssetSelection.assets(asset_key(recipe.name, name)) for name in (STUDY_RUNS, STUDY_ASSET)}
    return [
        dg.define_asset_job(
            job_name(recipe), selection=everything, description=markdown_text(recipe.description), tags=tags
        ),
        *(
            dg.define_asset_job(study_job_name(recipe, name), selection=selection, tags=tags)
            for name, selection in study.items()
        ),
        promotion_job(graph, tags),
    ]


@dg.definitions
def defs() -> dg.Definitions:
    """The code location."""
    return build_definitions([Graph(read_recipe(path)) for path in recipe_files()], prepare_environment())
