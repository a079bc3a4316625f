"""What a training measures, as rows of its log and as words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LOGGED_STEPS = 2000
"""Points of a curve that are kept; with more steps a point is a mean of several."""


def curve_rows(name: str, step: int, split: str, values: Mapping[str, float], rate: float) -> list[dict[str, Any]]:
    """One row per measured value.

    Args:
        name: Of what trains.
        step: After which it was measured.
        split: Of the texts.
        values: By term.
        rate: The learning rate of the step.
    """
    return [
        {"stage": name, "step": step, "split": split, "term": term, "value": value, "learning_rate": rate}
        for term, value in values.items()
    ]


def mean_values(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each term over some steps, of which there is at least one."""
    return {term: sum(row[term] for row in rows) / len(rows) for term in rows[-1]}


def shown_values(values: Mapping[str, float]) -> str:
    """`8.61 (full/cosine 0.31, ...)`."""
    terms = ", ".join(f"{name} {value:.3g}" for name, value in values.items() if name != "total")
    return f"{values['total']:.4g} ({terms})"
