"""The reference tables of docs/recipe.md, written from the recipe's models and the registries of kinds.

`python -m stella_assets.recipe.reference` writes what stands between `<!-- table: NAME -->` and `<!-- end -->`. NAME is
a place in the recipe, e.g. `corpus.clean`, `recipe` for its top level, or the name of a registry, e.g. `SOURCES`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

from pydantic.fields import FieldInfo

from stella_assets.core.config import ConfigModel
from stella_assets.core.errors import UserError
from stella_assets.core.markup import markdown_table
from stella_assets.core.registry import Registry
from stella_assets.corpus.sources import SOURCES
from stella_assets.evaluation.kinds import TASK_KINDS
from stella_assets.recipe.read import models_in
from stella_assets.recipe.recipe import Recipe
from stella_assets.students import STUDENTS
from stella_assets.teachers.api.dialects import DIALECTS
from stella_assets.teachers.kinds import TEACHERS
from stella_assets.teachers.scorers import PAIR_SCORERS
from stella_assets.teachers.scorers.dialects import RERANK_DIALECTS
from stella_assets.training.losses import LOSSES
from stella_assets.training.retriever_losses import LIST_LOSSES
from stella_assets.training.retrievers import RETRIEVERS
from stella_assets.training.stages import STAGES

PAGE = Path(__file__).parents[2] / "docs" / "recipe.md"
TABLE = re.compile(r"(?<=<!-- table: )([\w.]+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
REGISTRIES: dict[str, Registry[Any]] = {
    "SOURCES": SOURCES,
    "TEACHERS": TEACHERS,
    "DIALECTS": DIALECTS,
    "PAIR_SCORERS": PAIR_SCORERS,
    "RERANK_DIALECTS": RERANK_DIALECTS,
    "STUDENTS": STUDENTS,
    "STAGES": STAGES,
    "LOSSES": LOSSES,
    "RETRIEVERS": RETRIEVERS,
    "LIST_LOSSES": LIST_LOSSES,
    "TASK_KINDS": TASK_KINDS,
}
# In characters. Longer ones, e.g. lists of patterns, would make the column wider than the page.
LONGEST_DEFAULT = 60
TYPES = {"boolean": "`true` or `false`", "integer": "integer", "number": "number", "string": "text", "null": ""}
BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
Schema = dict[str, Any]
"""A JSON schema, as pydantic writes it."""


def with_tables(page: str) -> str:
    """A page with its tables written anew.

    Args:
        page: Markdown with pairs of markers, as the docstring of the module says.

    Returns:
        The page. Text outside of the markers stays as it is.

    Raises:
        UserError: A table's name is not a place in the recipe.
    """
    return TABLE.sub(lambda match: f"{match[1]}{match[2]}\n{_table(match[1])}\n\n", page)


def _table(name: str) -> str:
    if name in REGISTRIES:
        return _kinds_table(REGISTRIES[name])
    models = models_at(() if name == "recipe" else tuple(name.split(".")))
    if not models:
        raise UserError(f"{PAGE.name}: the recipe has no settings at {name!r}.", "Correct the name of the table.")
    # Kinds share keys with equal cells; a dict keeps one of each, in order.
    rows = dict.fromkeys(cells for model in models for cells in _rows(model).values())
    return markdown_table(("key", "value", "default", "meaning"), list(rows), figures=False, markup=True)


def _kinds_table(registry: Registry[Any]) -> str:
    """What each kind is; then the keys that all kinds have, and those that some have."""
    kinds = list(registry)
    # The nearest common base: its keys are common to all kinds and need no names.
    base = next(parent for parent in kinds[0].__mro__[1:] if all(issubclass(kind, parent) for kind in kinds))
    summaries: list[tuple[str, str]] = []
    names: dict[tuple[str, str, str, str], list[str]] = {cells: [] for cells in _rows(base).values()}
    for kind, (name, summary, _) in zip(kinds, registry.documentation(base), strict=True):
        summaries.append((f"`{name}`", summary))
        for key, cells in _rows(kind).items():
            if key != registry.key:
                names.setdefault(cells, []).append(f"`{name}`")
    # Rows of one key are placed together, where the key first occurs.
    first = list(dict.fromkeys(cells[0] for cells in names))
    rows = [
        (cells[0], _which(of, [name for name, _ in summaries]), *cells[1:])
        for cells, of in sorted(names.items(), key=lambda item: first.index(item[0][0]))
        if of
    ]
    tables = [markdown_table((f"`{registry.key}`", "meaning"), summaries, figures=False, markup=True)]
    if rows:
        header = ("key", f"of `{registry.key}`", "value", "default", "meaning")
        tables.append(markdown_table(header, rows, figures=False, markup=True))
    return "\n\n".join(tables)


def _which(names: list[str], every: list[str]) -> str:
    """Which kinds have a key, in few words."""
    others = [name for name in every if name not in names]
    if not others:
        return "all"
    return f"all but {', '.join(others)}" if len(others) < len(names) else ", ".join(names)


def _rows(model: type[ConfigModel]) -> dict[str, tuple[str, str, str, str]]:
    """Key, values, default and meaning, of each key."""
    schema = model.model_json_schema()
    # pydantic puts the model under `$defs` and refers to it where it refers to itself.
    schema = schema if "properties" in schema else schema["$defs"][model.__name__]
    return {
        key: (f"`{key}`", _values(schema["properties"][key]), _default(field), field.description or "")
        for key, field in model.model_fields.items()
    }


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, ConfigModel):
        return "its defaults"
    shown = default if isinstance(default, str) and default else json.dumps(default)
    return f"`{shown}`" if len(shown) <= LONGEST_DEFAULT else "built in"


def _values(schema: Schema) -> str:
    """What values a key takes, in words."""
    if choices := schema.get("enum", [schema["const"]] if "const" in schema else None):
        return ", ".join(f"`{choice if isinstance(choice, str) else json.dumps(choice)}`" for choice in choices)
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return ", or ".join(filter(None, dict.fromkeys(map(_values, schema[union]))))
    match schema.get("type"):
        case "array":
            return f"list of {_values(schema['items'])}"
        case "object":
            return f"mapping to {_values(schema['additionalProperties'])}"
        case None:
            return "settings"
        case plain:
            return TYPES[plain] + "".join(
                f" {sign} {schema[key]:.15g}" for key, sign in BOUNDS.items() if key in schema
            )


def models_at(place: tuple[str, ...]) -> list[type[ConfigModel]]:
    """The settings models at a place in the recipe, those of every kind where the place has several.

    Args:
        place: Keys from the top level, without positions of lists; the name of a kind chooses it among several.

    Returns:
        Empty where the recipe has no such place.

    Example:
        >>> models_at(("corpus", "clean"))
    """
    models: list[type[ConfigModel]] = [Recipe]
    for key in place:
        if named := [model for model in models if _is_kind(model, key)]:
            models = named
            continue
        fields = [model.model_fields[key] for model in models if key in model.model_fields]
        models = [found for field in fields for found in models_in(field.annotation)]
    return models


def _is_kind(model: type[ConfigModel], name: str) -> bool:
    return "kind" in model.model_fields and name in get_args(model.model_fields["kind"].annotation)


def main() -> None:
    """Write the tables of docs/recipe.md."""
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
