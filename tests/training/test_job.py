"""A stage in processes of their own: the same result, over two processes too, and none outlives its run."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.conftest import TINY, write_recipe

STELLA = str(Path(sys.executable).with_name("stella"))
TORCHRUN = "torchrun --standalone --nproc_per_node 2"
FSDP = {
    "PYTHONPATH": str(Path(__file__).with_name("fsdp_on_cpu")),
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
LAUNCHERS: dict[str, tuple[str, dict[str, str]]] = {
    "one process": ("python", {}),
    "two processes": (TORCHRUN, {}),
    "two processes, weights spread": (TORCHRUN, FSDP),
}


def command(recipe: Path, until: str) -> list[str]:
    names = ["corpus", "teacher_vectors", "concatenated_vectors", "tokenised_texts", "stage_1", "stage_2"]
    chosen = names[: names.index(until) + 1]
    return [STELLA, "run", str(recipe), *(word for name in chosen for word in ("--select", name))]


def environment(workspace: Path, launch: str) -> dict[str, str]:
    return {**os.environ, "STELLA_HOME": str(workspace), "STELLA_LAUNCH": launch, "COLUMNS": "300"}


def run(recipe: Path, workspace: Path, launch: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    env = environment(workspace, launch) | variables
    return subprocess.run(command(recipe, "stage_2"), check=False, env=env, capture_output=True, text=True)


def two_stages(folder: Path) -> Path:
    raw = copy.deepcopy(TINY)
    raw["corpus"]["sources"][0] |= {"packages": ["networkx"], "limit": 300}
    raw["teachers"] = raw["teachers"][1:]
    raw["stages"][0] |= {"steps": 8, "batch_size": 32}
    raw["stages"][1] |= {
        "steps": 8,
        "train_layers": "all",
        "learning_rate": 5e-5,
        "matryoshka_heads": {"similarity": 1},
    }
    del raw["stages"][2]
    raw["student"]["matryoshka_dims"] = [16]
    raw["release"]["dimension"] = 32
    return write_recipe(folder, raw)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return two_stages(tmp_path)


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace after the stages were trained in the run's own process."""
    folder = tmp_path_factory.mktemp("inside")
    done = run(two_stages(folder), folder / "workspace")
    assert done.returncode == 0, done.stderr
    return folder / "workspace"


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param("one process", marks=pytest.mark.slow),
        pytest.param("two processes", marks=pytest.mark.bench),
        pytest.param("two processes, weights spread", marks=pytest.mark.slow),
    ],
)
def test_a_launched_stage_gives_the_result_of_one_inside_the_run(
    recipe: Path, inside: Path, tmp_path: Path, launcher: str
):
    launched = tmp_path / "workspace"
    shutil.copytree(inside, launched, symlinks=True)
    for stage in ("stage_1", "stage_2"):
        shutil.rmtree(launched / "artefacts" / stage)
    launch, variables = LAUNCHERS[launcher]
    done = run(recipe, launched, launch, **variables)
    assert done.returncode == 0, done.stderr
    assert "stage_2: step 8 of 8" in done.stderr
    for stage in ("stage_1", "stage_2"):
        ours, theirs = (
            load_file(workspace / "tiny" / stage / "model/model.safetensors") for workspace in (inside, launched)
        )
        for name in ours:
            assert_close(ours[name], theirs[name], atol=0 if launcher == "one process" else 2e-3, rtol=0)
    digests = {
        json.loads((workspace / "tiny/stage_2/manifest.json").read_text())["digest"] for workspace in (inside, launched)
    }
    assert len(digests) == (1 if launcher == "one process" else 2)


@pytest.mark.slow
def test_a_refusal_is_reported_as_one_of_the_run(recipe: Path, tmp_path: Path):
    recipe.write_text(recipe.read_text().replace("batch_size: 32", "batch_size: 3000"))
    refused = run(recipe, tmp_path / "workspace", "python")
    assert refused.returncode == 2
    assert "stage_1: batch_size 3000 is more than the" in refused.stderr


@pytest.mark.slow
def test_no_process_of_a_stage_outlives_a_killed_run(recipe: Path, tmp_path: Path):
    recipe.write_text(recipe.read_text().replace("steps: 8", "steps: 100000"))
    process = subprocess.Popen(
        command(recipe, "stage_1"),
        env=environment(tmp_path / "workspace", TORCHRUN),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "stage_1: step " in line:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 3  # the launcher and its two processes
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and any(child.is_running() for child in children):
        time.sleep(0.2)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
