"""`stella init` writes a project that can be run, and never replaces a file."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from stella_assets.core.errors import UserError
from stella_assets.pipelines.cli.app import app
from stella_assets.pipelines.project import is_project
from stella_assets.pipelines.scaffold import ScaffoldError, recipe_name
from stella_assets.recipe import read_recipe
from stella_assets.recipe.built_in import built_in_recipes

ROOT = Path(__file__).parents[2]
FRAME = {".env", ".gitignore", "README.md", "dagster.yaml", "pyproject.toml"}


def init(*words: str | Path) -> str:
    """What `stella init` prints; its errors are raised."""
    done = CliRunner().invoke(app, ["init", *map(str, words)], catch_exceptions=True)
    if done.exception is not None:
        raise done.exception
    return done.output


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_new_project_has_a_recipe_for_own_texts_with_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert "stella run my_model" in init("My-Model")
    folder = tmp_path / "My-Model"
    assert files_in(folder) == FRAME | {"recipes/my_model.yaml", "texts/examples.txt"}
    assert is_project(folder)
    recipe = read_recipe(folder / "recipes" / "my_model.yaml")
    (source,) = recipe.corpus.sources
    rows = [row.text for part in source.parts() for row in source.read(part)]
    assert rows == (folder / "texts" / "examples.txt").read_text("utf-8").splitlines()
    assert len(rows) == 400


def test_own_texts_are_named_with_their_kind_and_column(tmp_path: Path):
    tickets = tmp_path / "Support Tickets.csv"
    tickets.write_text("id,body\n1,The door does not close.\n2,The lamp is dark.\n")
    folder = tmp_path / "project"
    init(folder, "--texts", tickets, "--column", "body")
    assert files_in(folder) == FRAME | {"recipes/project.yaml"}
    (source,) = read_recipe(folder / "recipes" / "project.yaml").corpus.sources
    assert (source.name, source.kind) == ("support_tickets", "csv")
    assert [row.text for part in source.parts() for row in source.read(part)] == [
        "The door does not close.",
        "The lamp is dark.",
    ]


def test_texts_in_the_project_move_with_it(tmp_path: Path):
    folder, moved = tmp_path / "project", tmp_path / "moved"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "notes.txt").write_text("A first note.\nA second note.\n")
    init(folder, "--texts", folder / "data", "--name", "notes")
    folder.rename(moved)
    (source,) = read_recipe(moved / "recipes" / "notes.yaml").corpus.sources
    assert source.files() == [moved / "recipes" / ".." / "data" / "notes.txt"]


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("id,body\n1,A text.\n", (), "the row has id, body. Name the column of the texts with --column"),
        ("text\nA text.\n", ("--column", "words"), "words"),
        ("text\nA text.\n", ("--name", "artefacts"), "artefacts"),
        ("text\nA text.\n", ("--name", "Not A Name"), "Not A Name"),
        (None, (), "there is no such file"),
    ],
)
def test_texts_that_cannot_be_read_are_reported_before_anything_is_written(
    content: str | None, options: tuple[str, ...], said: str, tmp_path: Path
):
    texts = tmp_path / "texts.csv"
    if content is not None:
        texts.write_text(content)
    with pytest.raises(UserError, match=said):
        init(tmp_path / "project", "--texts", texts, *options)
    assert not (tmp_path / "project").exists()


def test_a_table_with_the_suffix_of_a_text_is_to_be_renamed(tmp_path: Path):
    table = tmp_path / "unicode_text.txt"  # as Excel names a sheet with tabs
    table.write_text("id\tbody\n1\tA text.\n", encoding="utf-16")
    with pytest.raises(ScaffoldError, match=r"unicode_text.txt is read as a text without columns.*\.tsv"):
        init(tmp_path / "project", "--texts", table, "--column", "body")


def test_a_file_of_another_content_is_named_and_nothing_is_written(tmp_path: Path):
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / ".gitignore").write_text("mine")
    before = files_in(tmp_path)
    with pytest.raises(ScaffoldError, match=r"README.md.* exists already; nothing was written") as refused:
        init(tmp_path)
    assert ".gitignore" in str(refused.value)
    assert files_in(tmp_path) == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ScaffoldError, match="exists already"):
        init(tmp_path / "file")


def test_a_recipe_is_added_to_a_project_that_exists(tmp_path: Path):
    init(tmp_path / "x")
    (tmp_path / "x" / "README.md").write_text("changed")
    before = files_in(tmp_path / "x")
    init(tmp_path / "x", "--recipe", "jasper")
    added = files_in(tmp_path / "x") - before
    assert added == {"recipes/jasper.yaml", "recipes/environments/nv_embed_v2.txt"}
    init(tmp_path / "x", "--recipe", "stella_en_400m")  # which names the same requirements
    assert files_in(tmp_path / "x") - before - added == {"recipes/stella_en_400m.yaml"}
    assert (tmp_path / "x" / "README.md").read_text() == "changed"


@pytest.mark.parametrize("name", sorted(built_in_recipes()))
def test_every_built_in_recipe_is_the_same_in_a_project(name: str, tmp_path: Path):
    init(tmp_path / "x", "--recipe", name)
    there = read_recipe(tmp_path / "x" / "recipes" / f"{name}.yaml")
    assert there.digest == read_recipe(ROOT / "recipes" / f"{name}.yaml").digest


def test_built_in_recipes_are_those_of_the_checkout():
    assert list(built_in_recipes()) == sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


def test_a_built_in_recipe_that_does_not_exist_is_named(tmp_path: Path):
    with pytest.raises(ScaffoldError, match=r"--recipe dem: .* Give one of demo, .*jasper"):
        init(tmp_path / "x", "--recipe", "dem")
    with pytest.raises(ScaffoldError, match="texts and a name of its own"):
        init(tmp_path / "x", "--recipe", "demo", "--name", "other")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("folder", "name"), [("My Texts", "my_texts"), ("2026", "own_2026"), ("a.b", "a")])
def test_a_folder_gives_the_recipe_its_name(folder: str, name: str, tmp_path: Path):
    assert recipe_name(tmp_path / folder) == name


def test_a_missing_recipe_that_is_built_in_is_named_with_the_command_that_adds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    init(tmp_path / "x")
    monkeypatch.chdir(tmp_path / "x")
    monkeypatch.setenv("STELLA_HOME", str(tmp_path / "home"))
    done = CliRunner().invoke(app, ["status", "demo"])
    assert "--recipe demo" in str(done.exception)
