"""A new project: which files it has, and how they are written."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import get_args

import yaml

from stella_assets.core.errors import UserError
from stella_assets.core.templates import render
from stella_assets.corpus.errors import SourceError
from stella_assets.corpus.sources import SourceConfig, kind_of_files
from stella_assets.corpus.sources.python_docs import docstring_texts
from stella_assets.pipelines.project import INSTANCE_FILE, SCAFFOLD, is_project
from stella_assets.recipe import parse_recipe
from stella_assets.recipe.built_in import built_in_recipes, files_of_recipe
from stella_assets.storage.files import write_atomically

RECIPES = Path("recipes")
EXAMPLES = Path("texts") / "examples.txt"
# Documentation of networkx, which is installed with this package: enough for a first run with tasks of several kinds.
EXAMPLE_SOURCE = {"name": "examples", "kind": "text", "path": "../texts", "unit": "line", "licence": "BSD-3-Clause"}
EXAMPLE_PACKAGE, EXAMPLE_COUNT, EXAMPLE_CHARS = "networkx", 400, range(80, 400)
# In this package they have names that no tool looks for.
PLACES = {INSTANCE_FILE: INSTANCE_FILE, "pyproject.toml": "pyproject.toml", "env": ".env", "gitignore": ".gitignore"}
Content = Mapping[Path, bytes]
"""Files of a project, by their place in it."""


class ScaffoldError(UserError):
    """A project, or a recipe in it, cannot be written."""


def recipe_name(path: Path) -> str:
    """A name for a recipe or a source, from that of a file or folder.

    Args:
        path: An absolute path.
    """
    words = re.sub(r"[^a-z0-9]+", "_", path.name.split(".")[0].lower()).strip("_")
    return words if words[:1].isalpha() else f"own_{words}".rstrip("_")


def own_recipe(folder: Path, name: str, texts: Path | None = None, column: str | None = None) -> Content:
    """A recipe for own texts, which can be run as it is.

    Args:
        folder: Of the project, an absolute path; it need not exist.
        name: Of the recipe.
        texts: A file or folder; None for a folder with examples, which comes with the recipe.
        column: Of the texts, where the file has columns; None for `text`.

    Raises:
        UserError: The name or the texts cannot be used.
    """
    place = RECIPES / f"{name}.yaml"
    source = _own_source(folder, texts.absolute(), column) if texts else EXAMPLE_SOURCE
    # On one line, as the other examples in the recipe.
    line = yaml.safe_dump(source, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True).strip()
    text = render(__name__, "recipe.yaml.j2", name=name, source=line) + "\n"
    parse_recipe(yaml.safe_load(text), folder / place)
    examples = {} if texts else {EXAMPLES: _example_texts().encode()}
    return {place: text.encode(), **examples}


def _example_texts() -> str:
    rows = docstring_texts([EXAMPLE_PACKAGE], queries=False)
    lines = dict.fromkeys(" ".join(row.text.split()) for row in rows)
    fitting = (line for line in lines if len(line) in EXAMPLE_CHARS)
    return "".join(f"{line}\n" for line in islice(fitting, EXAMPLE_COUNT))


def _own_source(folder: Path, texts: Path, column: str | None) -> dict[str, object]:
    """An entry of `corpus.sources`, whose first rows were read."""
    kind = kind_of_files(texts)
    # Relative where both move together.
    path = os.path.relpath(texts, folder / RECIPES) if texts.is_relative_to(folder) else str(texts)
    (literal,) = get_args(kind.model_fields["kind"].annotation)
    source: dict[str, object] = {"name": recipe_name(texts), "kind": literal, "path": path}
    if "unit" in kind.model_fields:
        source["unit"] = "line"
    if column is not None:
        if "columns" not in kind.model_fields:
            raise ScaffoldError(
                f"--column {column}: {texts.name} is read as a text without columns, because of its suffix.",
                "Leave the option out, or give the file the suffix of a table, e.g. .csv or .tsv.",
            )
        source["columns"] = {"text": column}
    source["licence"] = "proprietary"
    # By its absolute path: the folder that the relative one counts from may not exist yet.
    _check(kind.model_validate(source | {"path": str(texts)}))
    return source


def _check(source: SourceConfig) -> None:
    try:
        source.check()
    except SourceError as error:
        if "columns" not in type(source).model_fields:
            raise
        raise ScaffoldError(error.message, "Name the column of the texts with --column, or correct the file.") from None


def built_in_recipe(name: str) -> Content:
    """A recipe of this package, with the files that it names.

    Args:
        name: Of the recipe.

    Raises:
        ScaffoldError: There is none of this name.
    """
    known = built_in_recipes()
    if name not in known:
        raise ScaffoldError(f"--recipe {name}: no built-in recipe has this name.", f"Give one of {', '.join(known)}.")
    return {RECIPES / path: (known[name].parent / path).read_bytes() for path in files_of_recipe(known[name])}


def write_project(folder: Path, recipe: Content) -> list[Path]:
    """Write a project, or add a recipe to one that exists. Files with the same content stay as they are.

    Args:
        folder: An absolute path; it is made if needed.
        recipe: From `own_recipe` or `built_in_recipe`; the first file is the recipe.

    Returns:
        The files that were written, by their place in the folder.

    Raises:
        ScaffoldError: A file with another content is there already. Nothing was written.
    """
    content = {**recipe, **({} if is_project(folder) else _frame(folder, recipe))}
    new = {place: data for place, data in content.items() if not _has(folder / place, data)}
    taken = [str(place) for place in new if os.path.lexists(folder / place)]
    if taken or (folder.exists() and not folder.is_dir()):
        raise ScaffoldError(
            f"{folder}: {', '.join(taken) or 'this'} exists already; nothing was written.",
            "Choose another folder, or move it away.",
        )
    for place, data in new.items():
        write_atomically(folder / place, data)
    return list(new)


def _frame(folder: Path, recipe: Content) -> Content:
    """The files of a project that are not a recipe's."""
    name = next(iter(recipe)).stem
    readme = render(__name__, "README.md.j2", title=folder.name, name=name, examples=EXAMPLES in recipe) + "\n"
    files = {Path(place): (SCAFFOLD / name).read_bytes() for name, place in PLACES.items()}
    return {**files, Path("README.md"): readme.encode()}


def _has(path: Path, data: bytes) -> bool:
    return path.is_file() and path.read_bytes() == data
