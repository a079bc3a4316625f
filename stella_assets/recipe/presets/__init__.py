"""Presets: stages that a recipe asks for by name, one YAML file each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

LENGTH = ("texts", "epochs", "min_texts", "max_texts")
"""Keys of a stage that say how long it trains."""


def preset_names() -> list[str]:
    """Names of the presets, sorted."""
    return sorted(
        entry.name.removesuffix(".yaml") for entry in files(__name__).iterdir() if entry.name.endswith(".yaml")
    )


@lru_cache
def _preset_text(name: str) -> str:
    return files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def expand_preset(stages: Any, teachers: Sequence[str] = ()) -> Any:
    """`robust`, or `{preset: robust, texts: 50000}`, as a list of stages; a list stays as it is.

    `texts` is what all stages see together, and `epochs` the same in passes over the training texts: each stage keeps
    its share of it, and the limits of the preset do not count. A stage in closed form has no such length.

    Args:
        stages: What the recipe says under `stages`.
        teachers: Names of the recipe's teachers, which join one after another in some presets.

    Returns:
        A list of stages, not yet validated; anything that is neither a name nor a mapping stays as it is.

    Raises:
        ValueError: There is no such preset, `texts` or `epochs` is not a number above 0, or there is another key.

    Example:
        >>> expand_preset({"preset": "leaf", "texts": 50000})
    """
    if isinstance(stages, str):
        stages = {"preset": stages}
    if not isinstance(stages, dict):
        return stages
    name, texts, epochs = (stages.get(key) for key in ("preset", "texts", "epochs"))
    if name not in preset_names():
        raise ValueError(f"there is no preset {name!r}; take one of {', '.join(preset_names())}, or a list of stages")
    if unknown := sorted(stages.keys() - {"preset", "texts", "epochs"}):
        raise ValueError(f"next to `preset` only `texts` or `epochs` is allowed, not {unknown[0]!r}")
    _require_length(texts, epochs)
    # Parsed anew each time, so no caller can change the stages of another one; only the text is cached.
    expanded = [stage for template in yaml.safe_load(_preset_text(name)) for stage in _by_teacher(template, teachers)]
    if texts is None and epochs is None:
        return expanded
    total = sum(map(_most_texts, expanded))

    def with_length(stage: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in stage.items() if key not in LENGTH}
        if epochs is not None:
            return kept | {"epochs": _most_texts(stage) * epochs / total}
        assert texts is not None, "one of the two is given"
        # At least one batch.
        return kept | {"texts": max(stage["batch_size"], round(_most_texts(stage) * texts / total))}

    return [with_length(stage) if _most_texts(stage) else stage for stage in expanded]


def _by_teacher(template: dict[str, Any], teachers: Sequence[str]) -> list[dict[str, Any]]:
    """The stages that a stage of a preset stands for: as `teachers` says, one for the first or for each further one."""
    match template.get("teachers"):
        case "first":
            return [template | {"teachers": list(teachers[:1]) or None}]
        case "joining":
            return [template | {"teachers": list(teachers[:number])} for number in range(2, len(teachers) + 1)]
        case _:
            return [template]


def _require_length(texts: Any, epochs: Any) -> None:
    """Raise ValueError for what is not a length."""
    if texts is not None and epochs is not None:
        raise ValueError("next to `preset` give either `texts` or `epochs`")
    # In Python `True` is an int.
    if texts is not None and (not isinstance(texts, int) or isinstance(texts, bool) or texts < 1):
        raise ValueError(f"texts {texts!r} must be a whole number above 0")
    if epochs is not None and (not isinstance(epochs, int | float) or isinstance(epochs, bool) or epochs <= 0):
        raise ValueError(f"epochs {epochs!r} must be a number above 0")


def _most_texts(stage: dict[str, Any]) -> int:
    """Texts that a stage of a preset sees at most; 0 for one in closed form. Shares are of these."""
    return int(stage.get("max_texts", stage.get("texts", 0)))
