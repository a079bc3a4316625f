"""`stella search` before there is a release, and on words that it cannot take."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stella_assets.pipelines.cli.app import app
from tests.conftest import write_recipe


def test_without_a_release_the_command_that_makes_it_is_named(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("STELLA_HOME", str(tmp_path / "home"))
    recipe = str(write_recipe(tmp_path, raw))
    done = CliRunner().invoke(app, ["search", recipe, "sort a list", "--json"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"its release does not exist yet. Run `stella run {recipe}` first." in done.stderr
    assert CliRunner().invoke(app, ["search", recipe, "sort a list", "--split", "all"]).exit_code == 2
    assert CliRunner().invoke(app, ["search", recipe, "sort a list", "--top-k", "0"]).exit_code == 2
