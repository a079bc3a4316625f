"""What a person starts from the launchpad."""

import dagster as dg
import pytest

from stella_assets.pipelines.definitions import build_definitions
from stella_assets.pipelines.jobs import forget_old_runs
from stella_assets.recipe import Graph, Recipe
from stella_assets.release.promotion import NothingToPromoteError
from stella_assets.storage.workspace import Workspace


@dg.asset
def scores(context: dg.AssetExecutionContext) -> None:
    """Scores of something."""


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["seed=1", "seed=2"]))
def seeds() -> None:
    """Scores by seed."""


def test_old_runs_are_deleted_except_those_that_made_the_newest_artefacts():
    instance = dg.DagsterInstance.ephemeral()
    runs = [dg.materialize([scores], instance=instance).run_id for _ in range(3)]
    runs += [dg.materialize([seeds], instance=instance, partition_key=key).run_id for key in ("seed=1", "seed=1")]
    runs += [dg.materialize([seeds], instance=instance, partition_key="seed=2").run_id]
    young = forget_old_runs.execute_in_process(instance=instance)
    assert {run.run_id for run in instance.get_runs()} == {*runs, young.run_id}
    config = {"ops": {"forget_runs": {"config": {"days": 0}}}}
    now = forget_old_runs.execute_in_process(config, instance=instance)
    assert {run.run_id for run in instance.get_runs()} == {runs[2], runs[4], runs[5], now.run_id}
    assert instance.get_latest_materialization_event(scores.key) is not None
    assert instance.get_materialized_partitions(seeds.key) == {"seed=1", "seed=2"}


def test_nothing_is_promoted_before_there_is_a_release(tiny: Recipe, workspace: Workspace):
    job = build_definitions([Graph(tiny)], workspace).resolve_job_def("promote_tiny")
    with pytest.raises(dg.Failure, match="there is no release for it as it is") as refused:
        job.execute_in_process(instance=dg.DagsterInstance.ephemeral())
    assert isinstance(refused.value.__cause__, NothingToPromoteError)
    assert not (workspace.releases / "tiny").exists()


def test_the_ui_shows_the_description_of_a_recipe_as_text(tiny: Recipe, workspace: Workspace):
    described = tiny.model_copy(
        update={"description": "[x](https://evil.example) <b> ![y](https://evil.example/y.png)"}
    )
    job = build_definitions([Graph(described)], workspace).resolve_job_def("distil_tiny")
    assert job.description == r"\[x\](https://evil.example) &lt;b&gt; !\[y\](https://evil.example/y.png)"
