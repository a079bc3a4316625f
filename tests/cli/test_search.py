"""`stella search` before there is a release, and on words that it cannot take."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stella_assets.core.errors import UserError
from stella_assets.pipelines.cli.app import app
from tests.conftest import write_recipe
from tests.training.retrievers.test_run import LATE, with_retrievers


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
    assert "QUERY ' ': nothing to look for." in str(CliRunner().invoke(app, ["search", recipe, " "]).exception)


def test_a_retriever_that_cannot_search_as_asked_is_refused(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("STELLA_HOME", str(tmp_path / "home"))
    reranker = {"name": "second", "kind": "reranker", "losses": {"bce": 1}, "steps": 1, "learning_rate": 1e-4}
    recipe = str(write_recipe(tmp_path, with_retrievers(raw, tmp_path, LATE, reranker)))
    for options, message in (
        (["--retriever", "other"], "--retriever other: recipe 'tiny' has no such retriever. It has late, second."),
        (["--retriever", "second", "--index"], "--index: 'second' has no vectors, and so no index."),
        (["--retriever", "late", "--split", "train"], "--split train: 'late' searches documents of 'test' only."),
    ):
        done = CliRunner().invoke(app, ["search", recipe, "sort a list", *options])
        assert isinstance(done.exception, UserError) or done.exit_code == 2
        assert message in " ".join((str(done.exception) + done.stderr).split())
    done = CliRunner().invoke(app, ["search", recipe, "sort a list", "--retriever", "late"])
    assert done.exit_code == 1
    assert f"its retriever_index/late does not exist yet. Run `stella run {recipe}` first." in done.stderr
