"""`stella doctor` names what is there and what is missing, and does not fail itself."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from stella_assets.pipelines.cli.app import app
from stella_assets.pipelines.environment import prepare_libraries, threads
from tests.conftest import write_recipe


@pytest.fixture
def project(raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a recipe that lacks nothing, and no variable set."""
    for name in ("STELLA_HOME", "STELLA_VECTORS", "STELLA_POSTGRES", "STELLA_THREADS", "STELLA_ENGINE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "project"
    (folder / "recipes").mkdir(parents=True)
    (folder / "dagster.yaml").touch()
    write_recipe(folder / "recipes", raw)
    monkeypatch.chdir(folder)
    return folder


def doctor(*words: str) -> Result:
    done = CliRunner().invoke(app, ["doctor", *words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def found(*words: str) -> dict[str, Any]:
    return json.loads(doctor("--json", *words).stdout)


def write(project: Path, raw: dict[str, Any]) -> None:
    (project / "recipes" / "bad.yaml").write_text(yaml.safe_dump({**raw, "name": "bad"}))


def test_where_nothing_is_missing_the_exit_code_is_0_and_nothing_is_written(project: Path):
    before = sorted(project.rglob("*"))
    started = time.monotonic()
    done = doctor()
    assert (done.exit_code, "nothing is missing" in done.stdout) == (0, True), done.output
    assert time.monotonic() - started < 3
    assert sorted(project.rglob("*")) == before
    machine = found()["machine"]
    assert machine["home"]["value"].startswith(f"{project / 'var'}, ")
    assert machine["project"]["value"] == str(project)
    assert [name for name, each in machine.items() if each["problem"] or not each["value"]] == []


def test_what_a_recipe_lacks_is_listed_and_the_exit_code_is_1(project: Path, raw: dict[str, Any]):
    raw["corpus"]["sources"] = [
        {"name": "a", "licence": "MIT", "kind": "python_docs", "packages": ["no_such_package"]},
        {"name": "b", "licence": "MIT", "kind": "text", "path": "./gone.txt"},
    ]
    raw["student"]["model"] = "./gone"
    raw["teachers"][0] |= {"model": "nobody/nothing", "revision": "0" * 40}
    raw["teachers"][0]["environment"] = {"requirements": "gone.txt", "python": "3.11"}
    write(project, raw)
    assert doctor().exit_code == 1
    lines = found()["recipes"]["bad"]
    expected = ["no_such_package", "gone.txt", "student: ", "nobody/nothing is not in the cache", "teacher 'minilm': "]
    assert [words for line, words in zip(lines, expected, strict=True) if words not in line] == [], lines
    assert doctor("tiny").exit_code == 0  # of the named recipe alone


def test_a_recipe_that_cannot_be_read_is_a_line_and_not_the_end(project: Path):
    (project / "recipes" / "bad.yaml").write_text("nam: x\n")
    lacks = found()["recipes"]
    assert "nam" in lacks["bad"][0]
    assert lacks["tiny"] == []
    assert "no recipe has this name" in found("gone")["recipes"]["gone"][0]


@pytest.mark.parametrize(
    ("name", "value", "row"),
    [
        ("STELLA_ENGINE", "warp", "engine"),
        ("STELLA_POSTGRES", "postgresql+psycopg2://me:s3cret@127.0.0.1:9/x", "database"),
        ("STELLA_THREADS", "none", "threads"),
    ],
)
def test_a_problem_of_the_machine_is_named_without_secrets(
    name: str, value: str, row: str, project: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(name, value)
    done = doctor("--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["machine"][row]["problem"].startswith(name)
    assert name in doctor().stderr
    assert "s3cret" not in done.output


def test_outside_of_a_project_the_remedy_is_said_once(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(project.parent)
    assert (done := doctor()).exit_code == 1
    assert done.stderr.count("`stella init DIR`") == 1
    monkeypatch.setenv("STELLA_HOME", str(project.parent / "home"))
    assert doctor().exit_code == 0
    assert not (project.parent / "home").exists()


def test_the_origin_of_the_threads_is_what_the_user_set(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # so that what is set is reset afterwards
    monkeypatch.delenv("OMP_NUM_THREADS")
    prepare_libraries()  # sets the variable itself
    assert threads()[1] == "the CPUs that this process may use"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert threads() == (7, "OMP_NUM_THREADS")
    monkeypatch.setenv("STELLA_THREADS", "3")
    assert threads() == (3, "STELLA_THREADS")
