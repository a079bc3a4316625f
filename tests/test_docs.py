"""The documentation is correct: keys, former names, commands, files and anchors exist."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.core import TyperGroup

from stella_assets.core.config import ConfigModel
from stella_assets.pipelines.cli.app import app
from stella_assets.recipe.former_keys import FORMER_KEYS, FORMER_VALUES
from stella_assets.recipe.recipe import Recipe
from stella_assets.recipe.reference import PAGE, TABLE, models_in, with_tables

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md", *(ROOT / "docs").glob("*.md")]
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def models_of_the_recipe() -> set[type[ConfigModel]]:
    """The recipe's models, including those of every kind."""
    found: set[type[ConfigModel]] = set()
    new = {Recipe}
    while new:
        found |= new
        new = {model for part in new for field in part.model_fields.values() for model in models_in(field.annotation)}
        new -= found
    return found


def commands(text: str) -> Iterator[list[str]]:
    """The words of each line of the page's shell blocks that runs `stella` or make."""
    for block in SHELL.findall(text):
        lines = block.replace("\n  ", " ").splitlines()
        for line in lines:
            words = shlex.split(line, comments=True) if re.match(r"\S*(stella|make) |[A-Z_]+=", line) else []
            while words and ("=" in words[0] or words[0] == "export"):  # variables before the command
                words = words[1:]
            if words:
                yield words


def test_the_tables_of_the_recipe_are_those_of_the_code():
    text = PAGE.read_text()
    assert with_tables(text) == text, "run `make docs`"


def test_every_key_of_a_recipe_is_in_a_table_and_says_what_it_means():
    tables = "".join(match[0] for match in TABLE.finditer(PAGE.read_text()))
    documented = set(re.findall(r"^\| `(\w+)` \|", tables, re.MULTILINE))
    for model in models_of_the_recipe():
        for key, field in model.model_fields.items():
            if key not in ("kind", "method", "loss", "dialect"):
                assert field.description, f"{model.__name__}.{key} has no description"
                assert key in documented, f"{model.__name__}.{key} is in no table"


def test_the_glossary_has_every_former_key():
    text = (ROOT / "docs" / "glossary.md").read_text()
    for names in (FORMER_KEYS, FORMER_VALUES):
        for place, renamed in names.items():
            for former, now in renamed.items():
                rows = [line for line in text.splitlines() if line.startswith("| `") and former in line.split("|")[1]]
                assert any(f"{now}`" in row or f"{now}]`" in row for row in rows), f"{place}.{former}"


@page
def test_links_and_pictures_of_the_documentation_exist(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
            assert anchor in anchors, target


@page
def test_commands_of_the_documentation_exist(page: Path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in commands(page.read_text()):
        if Path(words[0]).name == "stella":
            require_command(typer.main.get_command(app), words[1:])
        elif words[0] == "make":
            assert words[1] in targets, words


@page
def test_files_modules_and_benchmarks_of_the_documentation_exist(page: Path):
    text = page.read_text()
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert importlib.util.find_spec(module), module
    for path in re.findall(
        r"`((?:stella_assets|pipelines|storage|tests|docs|examples|deploy|recipes)/[\w./-]+)`", text
    ):
        assert (ROOT / path).exists(), path


def test_the_workflow_and_the_hooks_run_what_make_check_and_ci_run():
    makefile = (ROOT / "Makefile").read_text()
    check = re.findall(r"^\t\$\(BIN\)/(.+)$", makefile.split("\ncheck:")[1].split("\n\n")[0], re.MULTILINE)
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    tools = [hook["entry"].removeprefix(".venv/bin/").split()[0] for hook in hooks]
    assert tools == [line.split()[0] for line in check] == ["ruff", "ruff", "mypy", "lint-imports", "deptry"]
    steps = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["ci"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    assert re.findall(r"^make (\S+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE) == [
        "check",
        "test",
        "test-slow",
    ]


def require_command(command: Any, words: list[str]) -> None:
    """A command has the options that are written, down to its subcommand."""
    while isinstance(command, TyperGroup) and words:
        name = words[0]
        if name not in command.commands and command.name == "lineage":  # `stella lineage demo` shows
            name, words = "show", ["show", *words]
        assert name in command.commands, words
        command, words = command.commands[name], words[1:]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    written = {word.split("=")[0] for word in words if word.startswith("--")}
    assert written <= options, f"{command.name}: {written - options}"
