"""From a YAML file to a recipe, or to an error that names the file, the key, the value and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from stella_assets.core.config import ConfigModel
from stella_assets.core.errors import UserError
from stella_assets.core.secrets import hide_secrets
from stella_assets.recipe.former_keys import current_name, current_value
from stella_assets.recipe.recipe import Recipe
from stella_assets.recipe.yaml_file import load_yaml

Place = tuple[Any, ...]
LONGEST_VALUE = 200
"""Characters of a value that a message shows."""
UNSHOWN = (("key",), ("base_url",))
"""Settings whose value may be a secret, or have one."""
KINDS = {type(None): "an empty file", list: "a list"}
REMEDY = "Correct the recipe; docs/recipe.md lists every key and its values."


class RecipeError(UserError):
    """A recipe that cannot be run, with the file, the key, the value and the remedy."""


def read_recipe(path: Path) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: A YAML file; relative paths inside count from its folder.

    Returns:
        The recipe, with presets expanded and defaults filled in.

    Raises:
        RecipeError: The file is missing, is not YAML, or says something impossible.

    Example:
        >>> recipe = read_recipe(Path("recipes/demo.yaml"))
        >>> [teacher.name for teacher in recipe.teachers]
    """
    return parse_recipe(read_raw(path), path)


def read_raw(path: Path) -> dict[str, Any]:
    """A recipe as its file says it, not yet validated.

    Args:
        path: A YAML file in UTF-8.

    Returns:
        The top-level mapping.

    Raises:
        RecipeError: The file is missing, or is not a YAML mapping.
    """
    try:
        # Not opened before: a pipe would wait for a writer.
        if path.exists() and not path.is_file():
            raise RecipeError(f"{path}: is not a file.", "Give a YAML file or a name from recipes/.")
        raw = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such recipe.", "Give a YAML file or a name from recipes/.") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}).", "Give a YAML file that can be read.") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 at byte {error.start}.", "Save the recipe as UTF-8.") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not valid YAML. {error}", "Correct it there.") from None
    if not isinstance(raw, dict):
        raise RecipeError(
            f"{path}: a recipe is a mapping of keys to values, this is {KINDS.get(type(raw), 'a single value')}.",
            "See docs/recipe.md for an example.",
        )
    return raw


def parse_recipe(raw: dict[str, Any], path: Path) -> Recipe:
    """Validate what a recipe says.

    Args:
        raw: The recipe as a mapping, e.g. of `read_raw`.
        path: The file that errors name, and from whose folder relative paths count. It need not exist.

    Returns:
        The recipe, with presets expanded and defaults filled in.

    Raises:
        RecipeError: It says something impossible.
    """
    try:
        return Recipe.model_validate(raw, context={"folder": path.parent.resolve()})
    except ValidationError as error:
        lines = [f"{path}: {hide_secrets(line)}" for line in explain(error, raw)]
        raise RecipeError("\n".join(lines), REMEDY) from None


def explain(error: ValidationError, raw: Mapping[str, Any]) -> list[str]:
    """One line per mistake: key path, what is wrong, the value, the remedy.

    Args:
        error: What pydantic found.
        raw: The recipe as its file says it.

    Returns:
        The lines, without those of mistakes that only follow from another one.
    """
    # Places as a person wrote them, so that mistakes can be compared with one another.
    items = [(written_place(item["loc"], raw, item["type"]), item) for item in error.errors()]
    # A required key under its former name yields two errors, unknown and missing; only the first one is shown.
    renamed = {
        (*place[:-1], *current.split(".")[:1])
        for place, item in items
        if item["type"] == "extra_forbidden" and (current := current_name(place[:-1], str(place[-1])))
    }
    return [
        _explain(place, item, _value_at(place, raw, item["input"]))
        for place, item in items
        if not _follows(place, item["type"], [other for other, _ in items], renamed)
    ]


def written_place(location: Sequence[Any], raw: Any, kind: str) -> Place:
    """Where a person wrote what is wrong: pydantic adds the branches of unions to the path, which nobody wrote.

    Args:
        location: `loc` of an error of pydantic.
        raw: The recipe as its file says it.
        kind: `type` of the error.

    Returns:
        The keys and positions that the file has; the last one may be absent when it is the missing key itself.
    """
    place: list[Any] = []
    # `at` follows the file along the location; parts that the file does not have at that point are pydantic's own.
    at, tagged = raw, False
    for number, part in enumerate(location):
        is_last = number == len(location) - 1
        if isinstance(at, Mapping) and not tagged and not is_last and part in (at.get("kind"), at.get("method")):
            tagged = True  # of this mapping; a key of the same name can still follow
            continue
        inside = isinstance(at, Mapping) or (isinstance(at, list | tuple) and isinstance(part, int))
        if inside and (part in at if isinstance(at, Mapping) else part < len(at)):
            at, tagged = at[part], False
        elif not (is_last and kind == "missing"):
            continue
        place.append(part)
    return tuple(place)


def _follows(place: Place, kind: str, places: list[Place], renamed: set[Place]) -> bool:
    """Whether a mistake only follows from another one: a list is too short since its only item is wrong."""
    if kind == "too_short":
        return any(len(other) > len(place) and other[: len(place)] == place for other in places)
    return kind == "missing" and place in renamed


def _value_at(place: Place, raw: Any, otherwise: Any) -> Any:
    """The value that a person wrote at a place; a check of the whole mapping around it has another input."""
    for part in place:
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            return otherwise
    return raw


def _explain(place: Place, item: Any, value: Any) -> str:
    context = item.get("ctx", {})
    match item["type"]:
        case "extra_forbidden":
            said = _unknown_key(place)
        case "missing":
            said = "this key is required. Add it; docs/recipe.md says what it means."
        case "union_tag_not_found":
            place = (*place, str(context["discriminator"]).strip("'"))
            said = "this key is required. Add it; docs/recipe.md lists the kinds."
        case "union_tag_invalid":
            place, value = (*place, str(context["discriminator"]).strip("'")), context["tag"]
            said = f"there is no {_short(value)}. Take one of {context['expected_tags']}."
        case _:
            # What stands where a secret's name belongs may be the secret.
            is_shown = isinstance(value, str | int | float | bool | date | None) and place[-1:] not in UNSHOWN
            shown = f" (value: {_short(value)})" if is_shown else ""
            said = f"{_cut(item['msg'].removeprefix('Value error, '))}{shown}."
    # A former value is also an invalid tag or choice, so its rename replaces any message from above.
    if now := current_value(place, value):
        said = f"{value!r} is called {now!r} now. Rename it."
    return f"{'.'.join(map(str, place)) or 'recipe'}: {said}"


def _cut(message: str) -> str:
    """A message without the middle of a value that nobody would read; its end says what to do."""
    return message if len(message) <= 5 * LONGEST_VALUE else f"{message[:LONGEST_VALUE]}...{message[-LONGEST_VALUE:]}"


def _short(value: Any) -> str:
    """A value as Python writes it, cut where nobody would read on."""
    try:
        written = str(value) if isinstance(value, date) else repr(value)
    except ValueError:  # Python does not write numbers of thousands of digits
        return "a number of thousands of digits"
    return written if len(written) <= LONGEST_VALUE else f"{written[:LONGEST_VALUE]}..."


def _unknown_key(place: Place) -> str:
    key = str(place[-1])
    if now := current_name(place[:-1], key):
        return f"this key is called `{now}` now. Rename it."
    known = _keys_at(place[:-1])
    if key in known:
        return "this kind has no such key, another one has. Remove it."
    close = difflib.get_close_matches(key, sorted(known), n=1)
    hint = f"Did you mean `{close[0]}`?" if close else "Remove it; docs/recipe.md lists the keys."
    return f"there is no such key. {hint}"


def _keys_at(place: Place) -> set[str]:
    """Keys that exist where a misspelt one is; those of every kind where the place has several."""
    models: set[type[ConfigModel]] = {Recipe}
    for name in place:
        fields = [model.model_fields[name] for model in models if name in model.model_fields]
        models = {found for field in fields for found in models_in(field.annotation)} if fields else models
    return {key for model in models for key in model.model_fields}


def models_in(annotation: Any) -> Iterator[type[ConfigModel]]:
    """The settings models that an annotation names.

    Args:
        annotation: A type, or a union, list or mapping of types.

    Yields:
        Each model, in the order in which the annotation names them.
    """
    if isinstance(annotation, type) and issubclass(annotation, ConfigModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)
