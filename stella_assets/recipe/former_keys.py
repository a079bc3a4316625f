"""Keys and values of earlier versions of the recipe, and what they are called now."""

from __future__ import annotations

# Former keys are refused with their new name, not accepted: a setting has one name in all recipes.
LOSSES = {
    "margin": "relative_similarity.margin",
    "margin_needs_gap": "relative_similarity.margin_needs_gap",
    "per_spread": "normalize_by_teacher_std",
}
FORMER_KEYS: dict[str, dict[str, str]] = {
    "student": {"short_dims": "matryoshka_dims", "short_heads": "matryoshka_heads"},
    "stages.*": {
        "teacher_head": "full_head",
        "short_heads": "matryoshka_heads",
        "short_heads_learn_from": "matryoshka_targets",
        "batch_texts": "batch_size",
        "micro_batch_texts": "micro_batch_size",
        "average": "ema_decay",
        "keep": "checkpoint_selection",
        "final_rate": "min_lr_ratio",
        "clip_norm": "max_grad_norm",
        "unfreeze_over": "unfreeze_fraction",
    },
    "stages.*.full_head": LOSSES,
    "stages.*.matryoshka_heads": LOSSES,
    "stages.*.matryoshka_heads.*": LOSSES,
    "evaluation": {"own": "custom_tasks", "published": "reference_scores", "quantised": "quantizations"},
    "release.gate": {"largest_fall": "max_task_regression"},
    "redistil": {
        "least_new": "min_new_fraction",
        "least_change": "min_neighbor_change",
        "least_gain": "min_gain",
        "unused_days": "retention_days",
    },
}
"""By place in the recipe, `*` for any position of a list."""

FORMER_VALUES: dict[str, dict[str, str]] = {
    "stages.*.method": {"train": "descent", "solve": "closed_form"},
    "stages.*.matryoshka_targets.*": {"teacher_head": "full_head"},
}


def current_name(place: tuple[object, ...], key: str) -> str | None:
    """The present name of a key of an earlier version.

    Args:
        place: Keys and positions that lead to the mapping with the key.
        key: The key as it is written.

    Returns:
        A key, or a path below the same mapping, e.g. `relative_similarity.margin`; None for a key that was never
        renamed.
    """
    return FORMER_KEYS.get(_pattern(place), {}).get(key)


def current_value(place: tuple[object, ...], value: object) -> str | None:
    """The present name of a value of an earlier version.

    Args:
        place: Keys and positions that lead to the value.
        value: The value as it is written; only words were renamed.

    Returns:
        None for a value that was never renamed.
    """
    return FORMER_VALUES.get(_pattern(place), {}).get(value) if isinstance(value, str) else None


def _pattern(place: tuple[object, ...]) -> str:
    # Positions of lists vary, names do not: `stages.2` and `stages.0` have the same former keys.
    return ".".join("*" if isinstance(part, int) else str(part) for part in place)
