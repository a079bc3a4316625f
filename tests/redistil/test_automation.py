"""What starts a re-distillation, and what does not."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from stella_assets.core.runner import Runner
from stella_assets.pipelines import redistillation
from stella_assets.pipelines.asset_factory import asset_key
from stella_assets.pipelines.definitions import build_definitions
from stella_assets.pipelines.launch import PARENT_TAG
from stella_assets.pipelines.redistillation import period, redistil_automation
from stella_assets.recipe import Graph, Recipe, RecipeError, Redistil, parse_recipe
from stella_assets.redistil.ledger import Entry
from stella_assets.redistil.redistil import MakeAll
from stella_assets.storage.workspace import Workspace

KEY = asset_key("tiny", "redistillation")


@pytest.fixture
def watched(raw: dict[str, Any], tmp_path: Path) -> Recipe:
    """A recipe whose texts are files, and which is re-run automatically."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "one.jsonl").write_text(json.dumps({"text": "A text about sorting arrays."}) + "\n")
    raw["corpus"]["sources"] = [{"name": "docs", "kind": "jsonl", "path": "texts", "licence": "MIT"}]
    raw["redistil"] = True
    return parse_recipe(raw, tmp_path / "tiny.yaml")


class Daemon:
    """What the daemon does at each tick: the sensor that looks, then the conditions."""

    def __init__(self, recipe: Recipe, workspace: Workspace) -> None:
        self.instance = dg.DagsterInstance.ephemeral()
        self._definitions = build_definitions([Graph(recipe)], workspace)
        self._watch = redistil_automation(Graph(recipe))[1][0]
        self._workspace = workspace
        self._seen: str | None = None
        self._cursor: Any = None

    def tick(self) -> tuple[str, int]:
        """What the sensor said, and how many runs were asked for."""
        context = dg.build_sensor_context(self.instance, cursor=self._seen, resources={"workspace": self._workspace})
        found = self._watch(context)
        said = ""
        if isinstance(found, dg.SkipReason):
            said = found.skip_message or ""
        else:
            assert isinstance(found, dg.SensorResult)
            self._seen = found.cursor
            for event in found.asset_events:
                self.instance.report_runless_asset_event(event)
        result = dg.evaluate_automation_conditions(self._definitions, self.instance, cursor=self._cursor)
        self._cursor = result.cursor
        return said, result.total_requested


def test_a_change_of_the_sources_asks_for_one_run_and_nothing_else_does(
    watched: Recipe, workspace: Workspace, tmp_path: Path
):
    daemon = Daemon(watched, workspace)
    assert daemon.tick() == ("", 1)
    assert daemon.tick() == ("sources, teachers and recipe have not changed", 0)
    (tmp_path / "texts" / "two.jsonl").write_text(json.dumps({"text": "A text about networks."}) + "\n")
    assert daemon.tick() == ("", 1)
    assert daemon.tick() == ("sources, teachers and recipe have not changed", 0)
    (tmp_path / "texts" / "two.jsonl").touch()
    assert daemon.tick()[1] == 0


def test_a_missing_folder_is_reported_and_changes_nothing_until_it_is_back(
    watched: Recipe, workspace: Workspace, tmp_path: Path
):
    daemon = Daemon(watched, workspace)
    daemon.tick()
    (tmp_path / "texts").rename(tmp_path / "elsewhere")
    said, runs = daemon.tick()
    assert said.startswith("cannot be read: ")
    assert "texts: source 'docs' matches no file. Correct `path`" in said
    assert runs == 0
    (tmp_path / "elsewhere").rename(tmp_path / "texts")
    assert daemon.tick() == ("sources, teachers and recipe have not changed", 0)


def test_a_recipe_that_does_not_ask_for_it_has_neither_schedule_nor_sensor(tiny: Recipe, workspace: Workspace):
    assert redistil_automation(Graph(tiny)) == ([], [])
    assert KEY not in build_definitions([Graph(tiny)], workspace).resolve_asset_graph().get_all_asset_keys()


def test_the_schedule_runs_in_the_recipes_time_zone_as_soon_as_the_daemon_does(raw: dict[str, Any], tmp_path: Path):
    raw["redistil"] = {"schedule": "30 2 * * *", "timezone": "Europe/Berlin", "watch": False}
    (schedule,), sensors = redistil_automation(Graph(parse_recipe(raw, tmp_path / "tiny.yaml")))
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("30 2 * * *", "Europe/Berlin")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert sensors == []


@pytest.mark.parametrize(
    ("schedule", "days"), [("0 3 * * 1", 7), ("0 3 * * *", 1), ("0 0,12 * * *", 0.5), ("0 3 * * 1,2", 3.5)]
)
def test_the_period_of_a_schedule(schedule: str, days: float):
    assert period(Redistil(schedule=schedule)) == timedelta(days=days)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "every monday"}, "'every monday' is not a cron expression of five fields"),
        ({"schedule": "0 3 * * 1 2026"}, "is not a cron expression of five fields"),
        ({"schedule": "61 3 * * 1"}, "'61 3 * * 1' is not a cron expression"),
        ({"timezone": "Mars/Olympus"}, "'Mars/Olympus' is not a time zone"),
        ({"keep": 0}, "redistil.keep"),
        ({"weekly": True}, "redistil.weekly"),
    ],
)
def test_impossible_settings_are_refused_by_name(
    settings: dict[str, Any], message: str, raw: dict[str, Any], tmp_path: Path
):
    raw["redistil"] = settings
    with pytest.raises(RecipeError) as refused:
        parse_recipe(raw, tmp_path / "tiny.yaml")
    assert message in str(refused.value)


def test_a_redistillation_runs_its_steps_in_runs_that_the_ui_sees(
    watched: Recipe, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    def make_first(graph: Graph, runner: Runner, make_all: MakeAll, *, force: bool) -> Entry:
        make_all(graph.cleaned)
        assert runner.find(graph.cleaned) is not None
        return Entry("2026-01-05T03:00:00+00:00", "tiny", "promoted", f"forced: {force}", {"recipe": "1"})

    monkeypatch.setattr(redistillation, "redistil", make_first)
    job = build_definitions([Graph(watched)], workspace).resolve_job_def("redistil_tiny")
    instance = dg.DagsterInstance.ephemeral()
    config = {"ops": {"tiny__redistillation": {"config": {"force": True}}}}
    result = job.execute_in_process(config, instance=instance)
    assert result.success
    child, parent = instance.get_runs()
    assert (parent.run_id, child.tags[PARENT_TAG]) == (result.run_id, result.run_id)
    made = instance.get_latest_materialization_event(asset_key("tiny", "cleaned_texts"))
    assert made is not None
    assert made.run_id == child.run_id
    shown = instance.get_latest_materialization_event(KEY)
    assert shown is not None
    assert shown.asset_materialization is not None
    assert shown.asset_materialization.metadata["why"].value == "forced: True"


def test_a_redistillation_takes_no_place_of_a_pool_from_its_own_steps(watched: Recipe, workspace: Workspace):
    graph = build_definitions([Graph(watched)], workspace).resolve_asset_graph()
    assert graph.get(KEY).pools == set()
