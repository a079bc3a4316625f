"""Every example runs as it is printed, in a process of its own: kinds are registered before recipes are read."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
MAIL = "From a@b Mon Jan  5 03:00:00 2026\nSubject: Mail {number}\n\nWhere is the report of week {number}?\n\n"


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(EXAMPLES.parent)} | environment
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, env=env, timeout=600, check=False
    )


@pytest.mark.slow
def test_a_custom_teacher_is_one_class(tmp_path: Path):
    done = run(EXAMPLES / "own_teacher.py", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "stage 1:" in done.stdout


@pytest.mark.slow
def test_a_custom_loss_is_one_class(tmp_path: Path):
    done = run(EXAMPLES / "own_loss.py", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "dev loss" in done.stdout


@pytest.mark.slow
def test_the_python_api_makes_a_graph_and_finds_it_again_the_second_time(tmp_path: Path):
    first, second = (run(EXAMPLES / "python_api.py", tmp_path) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert ("reused" in first.stdout, "made" in second.stdout) == (False, False)
    assert first.stdout.replace("made ", "reused ") == second.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The third-party package, installed into a folder of its own."""
    source = shutil.copytree(EXAMPLES / "third_party_package", tmp_path_factory.mktemp("source") / "package")
    target = tmp_path_factory.mktemp("installed")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--target", target]
    done = run("-m", "pip", "install", *options, source)
    assert done.returncode == 0, done.stderr
    return target


def test_an_installed_package_adds_a_kind_of_source_without_a_change_to_this_repository(
    installed: Path, tmp_path: Path
):
    (tmp_path / "mails.mbox").write_text("".join(MAIL.format(number=number) for number in range(40)))
    recipe = tmp_path / "small.yaml"
    source = "{name: networkx, kind: python_docs, packages: [networkx], limit: 300}"
    text = (EXAMPLES / "small.yaml").read_text()
    assert source in text
    recipe.write_text(text.replace(source, "{name: mails, kind: mbox, path: mails.mbox, licence: MIT}"))
    command = ["-c", "from stella_assets.pipelines.cli import main; main()", "validate", recipe, "--no-rehearsal"]

    with_package = run(*command, PYTHONPATH=os.pathsep.join([str(installed), str(EXAMPLES.parent)]))
    assert with_package.returncode == 0, with_package.stdout + with_package.stderr

    without = run(*command)
    assert without.returncode == 2
    assert "mbox" in without.stdout + without.stderr
