"""Plots of the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stella_assets.core.figures import COLOURS, figure

Row = Mapping[str, Any]
# More columns of the legend do not fit the width of the plot.
MOST_COLUMNS = 4


def loss_curves(log: Sequence[Row]) -> bytes:
    """Total loss of each stage over all steps: every training step, and the dev split at checkpoints.

    Args:
        log: Rows of the table `training_log`, of one stage or several, in their order.

    Returns:
        The picture's bytes.
    """
    stages = list(dict.fromkeys(row["stage"] for row in log))  # sorted by name, stage_10 would come before stage_2

    def draw(axes: Any) -> None:
        start = 0
        for i, stage in enumerate(stages):
            total = [row for row in log if row["stage"] == stage and row["term"] == "total"]
            train = [(start + r["step"], r["value"]) for r in total if r["split"] == "train"]
            dev = [(start + r["step"], r["value"]) for r in total if r["split"] == "dev"]
            colour = COLOURS[i % len(COLOURS)]
            axes.plot(*zip(*train, strict=True), color=colour, linewidth=0.8, alpha=0.6, label=f"{stage} train")
            axes.plot(*zip(*dev, strict=True), "o-", color=colour, markersize=4, label=f"{stage} dev")
            # Each stage counts its steps from 0; the axis goes on where the one before ended.
            start += max(r["step"] for r in total)
        # Stages weigh their losses differently, so totals lie orders of magnitude apart.
        axes.set_yscale("log")
        axes.set_xlabel("step, stages one after another")
        axes.set_ylabel("weighted loss")
        axes.set_title("Loss")
        axes.legend(fontsize=8, frameon=False, ncols=min(len(stages), MOST_COLUMNS))

    return figure(8, 3.6, draw)
