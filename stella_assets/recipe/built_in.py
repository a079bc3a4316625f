"""The recipes that come with the package: the demo, and published models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stella_assets.recipe.read import read_raw

FOLDER = Path(__file__).parent / "recipes"


def built_in_recipes() -> dict[str, Path]:
    """The YAML files of the built-in recipes, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def files_of_recipe(path: Path) -> list[Path]:
    """A recipe and the files that it names by a relative path, e.g. the requirements of a teacher's environment.

    Args:
        path: The recipe.

    Returns:
        Paths relative to the recipe's folder, the recipe first.
    """
    named = sorted({text for text in _texts(read_raw(path)) if _is_file_below(path.parent, text)})
    return [Path(path.name), *map(Path, named)]


def _is_file_below(folder: Path, text: str) -> bool:
    # Long texts, e.g. prompts, are no names of files: the operating system refuses to look for them.
    return len(text) < 256 and "\n" not in text and (folder / text).is_file() and not Path(text).is_absolute()


def _texts(value: Any) -> Iterator[str]:
    """All texts in a recipe, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
