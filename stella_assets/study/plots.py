"""Plots of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stella_assets.core.figures import COLOURS, figure

Row = Mapping[str, Any]


def study_means(compared: Sequence[Row]) -> bytes:
    """Mean score of each variant, one mark per dimension; the line reaches from the lowest seed to the highest.

    Args:
        compared: As `compare` gives them.

    Returns:
        A PNG.
    """
    variants = list(dict.fromkeys(row["variant"] for row in compared))
    dims = sorted({row["dimension"] for row in compared}, reverse=True)

    def draw(axes: Any) -> None:
        for i, dim in enumerate(dims):
            rows = [row for row in compared if row["dimension"] == dim]
            # Dimensions of a variant are drawn around its position, so that their lines do not cover each other.
            places = [variants.index(row["variant"]) + 0.12 * (i - (len(dims) - 1) / 2) for row in rows]
            colour = COLOURS[i % len(COLOURS)]
            axes.hlines(places, [r["lowest"] for r in rows], [r["highest"] for r in rows], color=colour, linewidth=3)
            axes.plot([row["mean"] for row in rows], places, "o", color=colour, label=f"{dim} dims")
        axes.set_yticks(range(len(variants)), variants)
        # The first row is the best variant and belongs to the top; the y axis points upwards.
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
        axes.set_xlabel("mean score x 100; the line reaches from the lowest seed to the highest")
        axes.legend(fontsize=8, frameon=False)

    return figure(9, 0.45 * len(variants) + 1.2, draw)


def study_tasks(compared: Sequence[Row]) -> bytes:
    """Score of each variant by task, at its largest dimension, minus that of the best variant.

    Args:
        compared: As `compare` gives them.

    Returns:
        A PNG. The axis is in points, hundredths of a score.
    """
    largest: dict[str, Row] = {}
    for row in compared:
        if row["dimension"] > largest.get(row["variant"], {"dimension": 0})["dimension"]:
            largest[row["variant"]] = row
    # `compare` sorts the best variant first.
    best = next(iter(largest.values()))
    tasks = sorted(best["tasks"])

    def draw(axes: Any) -> None:
        for i, task in enumerate(tasks):
            # NaN leaves a gap: a variant need not have every task.
            values = [row["tasks"].get(task, float("nan")) - best["tasks"][task] for row in largest.values()]
            axes.plot(values, range(len(largest)), "o", color=COLOURS[i % len(COLOURS)], label=task)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(largest)), list(largest))
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
        axes.set_xlabel(f"points from the best, {best['variant']}")
        axes.legend(fontsize=8, frameon=False)

    return figure(9, 0.45 * len(largest) + 1.2, draw)
