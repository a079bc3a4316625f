"""Where commands look for the project, and where they keep its state."""

import shutil
from pathlib import Path

import pytest
from dagster import DagsterInstance

from stella_assets.pipelines.cli.errors import write_log
from stella_assets.pipelines.environment import prepare_environment, workspace
from stella_assets.pipelines.project import NoProjectError, find_project, project_root, recipe_files

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an empty folder of recipes, and no variable set."""
    for name in ("STELLA_HOME", "STELLA_POSTGRES", "DAGSTER_HOME"):
        monkeypatch.setenv(name, "")  # so that what is set is reset afterwards
        monkeypatch.delenv(name)
    folder = tmp_path / "project"
    (folder / "recipes" / "deep").mkdir(parents=True)
    shutil.copy(ROOT / "dagster.yaml", folder)
    return folder


def test_the_project_is_found_from_every_folder_in_it(project: Path, monkeypatch: pytest.MonkeyPatch):
    (project / "recipes" / "one.yaml").write_text("")
    for place in (project, project / "recipes", project / "recipes" / "deep"):
        monkeypatch.chdir(place)
        assert project_root() == project
        assert recipe_files() == [project / "recipes" / "one.yaml"]
        assert workspace().root == project / "var"


def test_outside_a_project_nothing_is_guessed(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(project.parent)
    assert find_project(project.parent) is None
    for ask in (project_root, recipe_files, workspace, prepare_environment):
        with pytest.raises(NoProjectError, match="`stella init DIR`"):
            ask()
    assert list(project.parent.iterdir()) == [project]


def test_stella_home_counts_in_a_project_and_outside_of_one(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STELLA_HOME", str(project.parent / "elsewhere"))
    for place in (project, project.parent):
        monkeypatch.chdir(place)
        assert prepare_environment().root == project.parent / "elsewhere"
    assert not (project / "var").exists()


@pytest.mark.parametrize("inside", [True, False])
def test_dagster_keeps_all_that_it_writes_in_the_home(inside: bool, project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STELLA_HOME", str(project.parent / "home"))
    monkeypatch.chdir(project if inside else project.parent)
    home = prepare_environment().root
    with DagsterInstance.get() as instance:
        assert Path(instance.root_directory) == home
        storages = [str(instance.run_storage), instance.event_log_storage._base_dir, instance.storage_directory()]
    assert [place for place in storages[1:] if not Path(place).is_relative_to(home)] == []
    assert (home / "history" / "runs.db").is_file()
    assert sorted(path.name for path in project.iterdir()) == ["dagster.yaml", "recipes"]


def test_the_settings_of_dagster_are_those_of_the_project(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(project)
    linked = prepare_environment().root / "dagster.yaml"
    assert linked.resolve() == project / "dagster.yaml"
    monkeypatch.setenv("STELLA_POSTGRES", "postgresql+psycopg2://somebody@localhost/none")
    prepare_environment()
    assert linked.read_text() == (ROOT / "deploy" / "dagster.yaml").read_text()
    (project / "deploy").mkdir()
    (project / "deploy" / "dagster.yaml").write_text("own: true\n")
    prepare_environment()
    assert linked.read_text() == "own: true\n"
    linked.unlink()
    linked.write_text("of somebody\n")
    prepare_environment()
    assert linked.read_text() == "of somebody\n"


def test_a_log_of_a_bug_is_written_outside_of_a_project_as_well(tmp_path: Path):
    path = write_log(None, "trace")
    assert path.read_text() == "trace"
    shutil.rmtree(path.parent)
