"""Presets: stages that a recipe asks for by name, one YAML file each."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml


def preset_names() -> list[str]:
    """Names of the presets, sorted."""
    return sorted(
        entry.name.removesuffix(".yaml") for entry in files(__name__).iterdir() if entry.name.endswith(".yaml")
    )


@lru_cache
def _preset_text(name: str) -> str:
    return files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def expand_preset(stages: Any) -> Any:
    """`robust`, or `{preset: robust, texts: 50000}`, as a list of stages; a list stays as it is.

    `texts` is what all stages see together: each stage keeps its share of it.

    Args:
        stages: What the recipe says under `stages`.

    Returns:
        A list of stages, not yet validated; anything that is neither a name nor a mapping stays as it is.

    Raises:
        ValueError: There is no such preset, `texts` is not a whole number above 0, or there is another key.

    Example:
        >>> expand_preset({"preset": "leaf", "texts": 50000})
    """
    if isinstance(stages, str):
        stages = {"preset": stages}
    if not isinstance(stages, dict):
        return stages
    name, texts = stages.get("preset"), stages.get("texts")
    if name not in preset_names():
        raise ValueError(f"there is no preset {name!r}; take one of {', '.join(preset_names())}, or a list of stages")
    if unknown := sorted(stages.keys() - {"preset", "texts"}):
        raise ValueError(f"next to `preset` only `texts` is allowed, not {unknown[0]!r}")
    # Parsed anew each time, so no caller can change the stages of another one; only the text is cached.
    expanded = yaml.safe_load(_preset_text(name))
    if texts is None:
        return expanded
    # In Python `True` is an int.
    if not isinstance(texts, int) or isinstance(texts, bool) or texts < 1:
        raise ValueError(f"texts {texts!r} must be a whole number above 0")
    total = sum(stage.get("texts", 0) for stage in expanded)
    return [
        # At least one batch per stage. A stage in closed form states no `texts`.
        stage | ({"texts": max(stage["batch_size"], round(stage["texts"] * texts / total))} if "texts" in stage else {})
        for stage in expanded
    ]
