"""Variants of a recipe: which values are changed. A variant's name is its complete description.

The name is `PATH=VALUE; PATH=VALUE; seed=N`. A path leads through the recipe by keys and positions, `*` is every stage
or teacher that has the key, and a value `x0.5` multiplies the recipe's: `stages.*.learning_rate=x3; seed=1`. The name
is a partition of the study's asset, so the UI can add one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from stella_assets.core.config import is_number
from stella_assets.core.errors import UserError
from stella_assets.recipe import Recipe, RecipeError, parse_recipe
from stella_assets.recipe.yaml_file import load_yaml

UNCHANGED = "as it is"
FORM = "Write PATH=VALUE; PATH=VALUE; seed=N."


class VariantError(UserError):
    """A grid or a variant that does not fit the recipe."""


@dataclass(frozen=True)
class Variant:
    """Changes of a recipe.

    Attributes:
        changes: Path, and value as it is written.
        seed: Of the training.
    """

    changes: tuple[tuple[str, str], ...] = ()
    seed: int = 0

    @property
    def label(self) -> str:
        """The changes, without the seed."""
        return "; ".join(f"{path}={value}" for path, value in self.changes) or UNCHANGED

    @property
    def name(self) -> str:
        """Changes and seed: the key of the partition."""
        return "; ".join([*(f"{path}={value}" for path, value in self.changes), f"seed={self.seed}"])

    @classmethod
    def parse(cls, name: str) -> Variant:
        """A variant by its name.

        Args:
            name: As the docstring of the module says. Without a seed, the seed is 0.

        Raises:
            VariantError: The name does not have this form.

        Example:
            >>> Variant.parse("stages.*.learning_rate=x3; seed=1").changes
            (('stages.*.learning_rate', 'x3'),)
        """
        changes, seed = [], 0
        for part in name.split(";"):
            path, found, value = (word.strip() for word in part.partition("="))
            if not found or not path or not value:
                raise VariantError(f"{name!r}: {part.strip()!r} is not of the form PATH=VALUE.", FORM)
            if path == "seed":
                seed = int(value) if is_number(value) else -1
                if seed < 0:
                    raise VariantError(f"{name!r}: seed {value!r} is not a whole number.", FORM)
            else:
                changes.append((path, value))
        return cls(tuple(changes), seed)


def read_grid(grid: Sequence[str], seeds: int, *, each: bool = False) -> list[Variant]:
    """The variants of a grid, every one with seeds 0, 1 and so on.

    Args:
        grid: Items `PATH=VALUE,VALUE,...`.
        seeds: How many.
        each: Change one path at a time, in addition to the recipe as it is; else combine every value with every other.

    Returns:
        Seeds of one variant follow each other.

    Raises:
        VariantError: An item has no path or no value.

    Example:
        >>> [variant.name for variant in read_grid(["stages.*.learning_rate=x0.5,x2"], seeds=1)]
        ['stages.*.learning_rate=x0.5; seed=0', 'stages.*.learning_rate=x2; seed=0']
    """
    columns = []
    for item in grid:
        path, _, values = (word.strip() for word in item.partition("="))
        if not path or not values:
            raise VariantError(
                f"--grid {item!r}: is not of the form PATH=VALUE,VALUE.", "E.g. `stages.*.learning_rate=x0.5,x2`."
            )
        chosen = _split(values)
        if not chosen:
            raise VariantError(f"--grid {item!r}: has no value.", "E.g. `stages.*.learning_rate=x0.5,x2`.")
        columns.append([(path, value) for value in chosen])
    # The empty change is the recipe as it is: single changes are compared with it.
    if each:
        changes = [(), *((change,) for column in columns for change in column)]
    else:
        changes = list(itertools.product(*columns))
    return [Variant(tuple(chosen), seed) for chosen in changes for seed in range(seeds)]


def _split(values: str) -> list[str]:
    """Split at commas outside of brackets."""
    # A value may be a YAML list or mapping, e.g. `{cosine: 10, l2: 1}`, with commas of its own.
    parts, depth = [""], 0
    for character in values:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def derive(recipe: Recipe, variant: Variant) -> Recipe:
    """The recipe with the variant's changes and seed.

    Args:
        recipe: The recipe; it stays as it is.
        variant: Its changes and seed.

    Returns:
        A recipe of the same name, without seeds in `evaluation`.

    Raises:
        VariantError: A path does not exist, or the recipe refuses a value.
    """
    # Through the raw values and the validator again: a variant is refused exactly where a recipe would be.
    raw = recipe.model_dump(mode="json")
    for path, value in variant.changes:
        # A list, because the loop below changes what the generator walks through.
        places = list(_places(raw, path.split(".")))
        if not places:
            raise VariantError(
                f"{path}={value}: recipe {recipe.name!r} has no such key.", "docs/recipe.md lists the keys."
            )
        for holder, key in places:
            holder[key] = _changed(holder[key], value, path)
    # Seeds of a study are variants; those of the recipe would be trained once more for each of them.
    raw["seed"], raw["evaluation"]["seeds"] = variant.seed, []
    try:
        # Any path in the folder of the recipe: relative paths count from there.
        return parse_recipe(raw, recipe.student.resolve(f"{recipe.name}.yaml"))
    except RecipeError as error:
        raise VariantError(f"{variant.label}: {error.message}", error.remedy) from None


def _places(holder: Any, keys: Sequence[str]) -> Iterator[tuple[Any, Any]]:
    """Where a path leads: holders with the key or position of the value."""
    first, *rest = keys
    options: list[Any] = []
    if isinstance(holder, dict):
        options = list(holder) if first == "*" else [first] if first in holder else []
    elif isinstance(holder, list):
        options = list(range(len(holder))) if first == "*" else [int(first)] if _in_list(first, holder) else []
    for option in options:
        if rest:
            yield from _places(holder[option], rest)
        else:
            yield holder, option


def _in_list(key: str, holder: list[Any]) -> bool:
    return is_number(key) and int(key) < len(holder)


def _changed(old: Any, value: str, path: str) -> Any:
    if value.startswith("x") and is_number(value[1:2]):
        if old is None:
            return None  # e.g. a stage in closed form, which has no learning rate
        if isinstance(old, bool) or not isinstance(old, int | float):
            raise VariantError(f"{path}={value}: {old!r} is not a number to multiply.", "Write the value itself.")
        try:
            product = old * float(value[1:])
            # Counts stay whole and above 0, e.g. a batch size.
            return max(1, round(product)) if isinstance(old, int) else product
        except (ValueError, OverflowError):
            raise VariantError(f"{path}={value}: is not a number after `x`.", "E.g. x0.5 for half.") from None
    try:
        return load_yaml(value)
    except yaml.YAMLError:
        raise VariantError(f"{path}={value}: the value is not YAML.", "Close its brackets and quotes.") from None
