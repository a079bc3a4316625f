"""What is installed claims one name."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_wheel_installs_one_package_with_all_of_the_code(tmp_path: Path):
    command = [sys.executable, "-m", "uv", "build", "--quiet", "--out-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"stella_assets"}
    for folder in ("pipelines", "storage"):
        code = {f"stella_assets/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / folder).rglob("*.py")}
        assert code
        assert code <= set(names)
    # What the code reads.
    data = {path for path in (ROOT / "stella_assets").rglob("*") if path.suffix in (".yaml", ".csv")}
    assert {path.relative_to(ROOT).as_posix() for path in data} <= set(names)
    # What `stella init` writes.
    recipes = {path.relative_to(ROOT).as_posix() for path in (ROOT / "recipes").rglob("*") if path.is_file()}
    in_a_checkout = {"recipes/demo_api.yaml"}  # its servers are among the tests
    installed = {name.removeprefix("stella_assets/recipe/") for name in names}
    assert recipes - installed == in_a_checkout
    scaffold = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pipelines/scaffold").rglob("*.*")}
    assert {f"stella_assets/{path}" for path in scaffold if "__pycache__" not in path} <= set(names)


@pytest.mark.parametrize("folder", ["pipelines", "storage"])
def test_the_folders_at_the_top_are_imported_under_one_name(folder: str):
    assert (ROOT / "stella_assets" / folder).resolve() == ROOT / folder
    found = [
        path.relative_to(ROOT).as_posix()
        for path in [
            *(ROOT / "stella_assets").rglob("*.py"),
            *(ROOT / "tests").rglob("*.py"),
            *(ROOT / folder).rglob("*.py"),
        ]
        if any(
            line.split()[:2] in (["from", folder], ["import", folder]) or line.startswith(f"from {folder}.")
            for line in path.read_text("utf-8").splitlines()
        )
    ]
    assert found == []


def test_a_tag_publishes_the_version_of_the_one_place_that_has_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "publish.yml").read_text("utf-8"))
    steps = [step["run"] for step in workflow["jobs"]["build"]["steps"] if "run" in step]
    check = next(step for step in steps if "GITHUB_REF_NAME" in step)
    for tag, code in ((f"v{project['version']}", 0), ("v99.0.0", 1)):
        done = subprocess.run(["bash", "-c", check], cwd=ROOT, env={**os.environ, "GITHUB_REF_NAME": tag}, check=False)
        assert done.returncode == code
    assert workflow["jobs"]["publish"]["permissions"] == {"id-token": "write"}


def test_the_command_and_the_definitions_are_in_the_installed_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["scripts"]["stella"].startswith("stella_assets.")
    assert project["tool"]["dagster"]["module_name"].startswith("stella_assets.")
