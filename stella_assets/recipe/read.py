"""From a YAML file to a recipe, or to an error that names the file, the key, the value and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from stella_assets.core.config import ConfigModel, RecipeError
from stella_assets.recipe.recipe import Recipe


class _Loader(yaml.SafeLoader):
    """YAML without keys that silently replace earlier ones."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is there twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


TAGS = {
    *("python_docs", "parquet", "jsonl", "text", "huggingface"),
    *("sentence_transformers", "lsa"),
    *("each", "by_dimension"),
}
"""What pydantic puts into the place of an error and no person has written."""


def read_recipe(path: Path) -> Recipe:
    """Read and validate a recipe.

    Raises:
        RecipeError: The file is missing, is no YAML, or says something impossible.
    """
    return parse_recipe(read_raw(path), path)


def read_raw(path: Path) -> dict[str, Any]:
    """A recipe as its file says it, not yet validated.

    Raises:
        RecipeError: The file is missing, or is no YAML mapping.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such recipe. Give a YAML file or a name from recipes/.") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 at byte {error.start}. Save the recipe as UTF-8.") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not valid YAML. {error}") from None
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values, this is {type(raw).__name__}.")
    return raw


def parse_recipe(raw: dict[str, Any], path: Path) -> Recipe:
    """Validate what a recipe says; `path` is where it says so, and what relative paths count from.

    Raises:
        RecipeError: It says something impossible.
    """
    try:
        return Recipe.model_validate(raw, context={"folder": path.parent.resolve()})
    except ValidationError as error:
        lines = [f"{path}: {_explain(item)}" for item in error.errors()]
        raise RecipeError("\n".join(lines)) from None


def _explain(item: Any) -> str:
    """One pydantic error as: key path, what is wrong, the value, the remedy."""
    where = ".".join(str(part) for part in item["loc"] if part not in TAGS) or "recipe"
    if item["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(item["loc"][-1]), _keys_beside(item["loc"]), n=1)
        hint = f"Did you mean `{close[0]}`?" if close else "Remove it; docs/recipe.md lists the keys."
        return f"{where}: there is no such key. {hint}"
    if item["type"] == "missing":
        return f"{where}: this key is required. Add it; docs/recipe.md says what it means."
    message = item["msg"].removeprefix("Value error, ")
    value = item["input"]
    shown = f" (value: {value!r})" if isinstance(value, str | int | float | bool | None) else ""
    return f"{where}: {message}{shown}."


def _keys_beside(place: tuple[Any, ...]) -> set[str]:
    """Keys that there are where a misspelt one stands; those of every kind where the place has several."""
    parts: set[type[ConfigModel]] = {Recipe}
    for name in place[:-1]:
        fields = [part.model_fields[name] for part in parts if name in part.model_fields]
        parts = {found for field in fields for found in _parts_in(field.annotation)} if fields else parts
    return {key for part in parts for key in part.model_fields}


def _parts_in(annotation: Any) -> Iterator[type[ConfigModel]]:
    if isinstance(annotation, type) and issubclass(annotation, ConfigModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _parts_in(argument)
