"""The step of a stage: what its artefact depends on, what it starts from, and processes of its own."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stella_assets.core.runner import Runner
from stella_assets.core.step import Result, Step
from stella_assets.storage.workspace import Workspace
from stella_assets.students import DenseConfig
from stella_assets.training.inputs import StageInputs
from stella_assets.training.job import JobError, run_as_job
from stella_assets.training.stage import stage_step
from stella_assets.training.stages.descent import Descent
from stella_assets.training.start import Start, StartError, set_start, start_folder
from stella_assets.training.train import train_stage
from tests.conftest import TINY


def input_step(name: str) -> Step[Any]:
    return Step("tiny", name, "1", {}, build=lambda _context: Result())


@pytest.fixture
def make_stage(config: DenseConfig) -> Callable[..., Step[Any]]:
    concatenation, tokens = input_step("concatenated_vectors"), input_step("tokenised_texts")

    def make(seed: int, prefix: str = "", previous: Step[Any] | None = None) -> Step[Any]:
        return stage_step(
            "tiny", number=2 if previous else 1, stage=Descent.model_validate(TINY["stages"][0]), student=config,
            seed=seed, concatenation=concatenation, tokens=tokens, semantic_duplicates=None, previous=previous,
            starts_matryoshka_heads=False, prefix=prefix,
        )  # fmt: skip

    return make


def test_each_seed_has_artefacts_of_its_own(make_stage, workspace: Workspace, log: logging.Logger):
    """Stages of other seeds were found under the recipe's own, so that seeds 1, 2 and 3 had equal scores."""
    runner = Runner(workspace, log)
    stages = {f"seed_{seed}/": make_stage(seed, f"seed_{seed}/") for seed in (1, 2, 3)}
    for step in stages["seed_1/"].dependencies:
        runner.make(step)
    keys = {name: runner.identity(stage).key for name, stage in stages.items()}
    assert len(set(keys.values())) == 3
    assert {stage.name for stage in stages.values()} == {"seed_1/stage_1", "seed_2/stage_1", "seed_3/stage_1"}
    again = make_stage(2)
    assert (again.name, again.stored_as) == ("stage_1", "stage_1")
    assert runner.identity(again).key == keys["seed_2/"]


def test_later_stages_of_a_seed_continue_from_a_stage_of_that_seed(make_stage):
    first = make_stage(1, "seed_1/")
    second = make_stage(1, "seed_1/", first)
    assert first in second.dependencies
    assert (second.name, second.stored_as) == ("seed_1/stage_2", "stage_2")


def test_weights_that_no_longer_exist_are_refused_with_the_one_file_to_remove(workspace: Workspace):
    """The folder holds a file per recipe: removing it would restart all recipes from the base model."""
    for recipe in ("tiny", "other"):
        set_start(workspace, recipe, Start("stage_3", "0" * 16, "1" * 32))
    assert start_folder(workspace, "without") is None
    with pytest.raises(StartError) as refused:
        start_folder(workspace, "tiny")
    assert refused.value.remedy == f"Remove {workspace.starts / 'tiny.json'} to begin with the base model again."
    (workspace.starts / "tiny.json").unlink()
    assert start_folder(workspace, "tiny") is None
    with pytest.raises(StartError):
        start_folder(workspace, "other")


def launch(arguments: Sequence[str]) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True)


def test_a_stage_needs_only_plain_values(inputs: StageInputs):
    written = json.loads(json.dumps(inputs.to_json()))
    assert StageInputs.from_json(written).to_json() == written


@pytest.mark.slow
def test_a_stage_in_a_process_of_its_own_writes_the_same_files(
    inputs: StageInputs, tmp_path: Path, log: logging.Logger
):
    elsewhere = replace(inputs, folder=tmp_path / "here", scratch=tmp_path / "scratch_here")
    elsewhere.folder.mkdir()
    elsewhere.scratch.mkdir()
    launched, here = run_as_job(inputs, launch), train_stage(elsewhere, log)
    files = sorted(path.relative_to(inputs.folder) for path in inputs.folder.rglob("*") if path.is_file())
    assert {str(path) for path in files} >= {"model/model.safetensors", "optimizer.safetensors", "training_log.parquet"}
    for path in files:
        assert (inputs.folder / path).read_bytes() == (elsewhere.folder / path).read_bytes(), path
    assert launched.metrics["dev_loss_after"] == here.metrics["dev_loss_after"]
    assert launched.checks == here.checks


def test_what_a_job_refuses_is_reported_with_its_remedy(inputs: StageInputs):
    greedy = replace(inputs, stage=inputs.stage.model_copy(update={"batch_size": 3000}))
    with pytest.raises(JobError, match="stage_1: batch_size 3000 is more than the 200 training texts") as refused:
        run_as_job(greedy, launch)
    assert refused.value.remedy == "Lower `batch_size`, or add texts to the corpus."


def test_a_bug_in_a_job_is_a_failure_with_its_traceback(inputs: StageInputs):
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run_as_job(replace(inputs, tokens=inputs.tokens.with_name("missing")), launch)
    assert "Traceback" in failed.value.stderr
    assert "FileNotFoundError" in failed.value.stderr
