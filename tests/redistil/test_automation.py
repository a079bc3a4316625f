"""What starts a re-distillation, and what does not."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from storage.workspace import Workspace

from pipelines.definitions import build_definitions
from stella_assets.assets import asset_key
from stella_assets.recipe import Recipe, RecipeError, Redistil, parse_recipe
from stella_assets.redistil.assets import period, redistil_automation

KEY = asset_key("tiny", "redistillation")


@pytest.fixture
def watched(raw: dict[str, Any], tmp_path: Path) -> Recipe:
    """A recipe whose texts are files, which does it all again by itself."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "one.jsonl").write_text(json.dumps({"text": "A text about sorting arrays."}) + "\n")
    raw["corpus"]["sources"] = [{"name": "docs", "kind": "jsonl", "path": "texts", "licence": "MIT"}]
    raw["redistil"] = True
    return parse_recipe(raw, tmp_path / "tiny.yaml")


class Daemon:
    """What the daemon does at each tick: the sensor that looks, then the conditions."""

    def __init__(self, recipe: Recipe, workspace: Workspace) -> None:
        self.instance = dg.DagsterInstance.ephemeral()
        self._definitions = build_definitions([recipe], workspace)
        self._watch = redistil_automation(recipe)[1][0]
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
    assert daemon.tick() == ("sources, teachers and recipe are as they were", 0)
    (tmp_path / "texts" / "two.jsonl").write_text(json.dumps({"text": "A text about networks."}) + "\n")
    assert daemon.tick() == ("", 1)
    assert daemon.tick() == ("sources, teachers and recipe are as they were", 0)
    (tmp_path / "texts" / "two.jsonl").touch()
    assert daemon.tick()[1] == 0


def test_a_folder_that_vanishes_is_told_and_changes_nothing_until_it_is_back(
    watched: Recipe, workspace: Workspace, tmp_path: Path
):
    daemon = Daemon(watched, workspace)
    daemon.tick()
    (tmp_path / "texts").rename(tmp_path / "elsewhere")
    said, runs = daemon.tick()
    assert said.startswith("cannot be looked at: ")
    assert "texts: source 'docs' matches no file. Correct `path`" in said
    assert runs == 0
    (tmp_path / "elsewhere").rename(tmp_path / "texts")
    assert daemon.tick() == ("sources, teachers and recipe are as they were", 0)


def test_a_recipe_that_does_not_ask_for_it_has_neither_schedule_nor_sensor(tiny: Recipe, workspace: Workspace):
    assert redistil_automation(tiny) == ([], [])
    assert KEY not in build_definitions([tiny], workspace).resolve_asset_graph().get_all_asset_keys()


def test_the_schedule_runs_in_the_recipes_time_zone_as_soon_as_the_daemon_does(raw: dict[str, Any], tmp_path: Path):
    raw["redistil"] = {"schedule": "30 2 * * *", "timezone": "Europe/Berlin", "watch": False}
    (schedule,), sensors = redistil_automation(parse_recipe(raw, tmp_path / "tiny.yaml"))
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
        ({"schedule": "every monday"}, "'every monday' is no cron expression of five fields"),
        ({"schedule": "0 3 * * 1 2026"}, "is no cron expression of five fields"),
        ({"schedule": "61 3 * * 1"}, "'61 3 * * 1' is no cron expression"),
        ({"timezone": "Mars/Olympus"}, "'Mars/Olympus' is no time zone"),
        ({"keep": 0}, "redistil.keep"),
        ({"weekly": True}, "redistil.weekly"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(
    settings: dict[str, Any], message: str, raw: dict[str, Any], tmp_path: Path
):
    raw["redistil"] = settings
    with pytest.raises(RecipeError) as refused:
        parse_recipe(raw, tmp_path / "tiny.yaml")
    assert message in str(refused.value)
