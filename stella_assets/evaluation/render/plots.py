"""Plots of the evaluation report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stella_assets.core.figures import COLOURS, figure
from stella_assets.evaluation.summary import Summary

Row = Mapping[str, Any]


def score_by_model(summary: Summary) -> bytes:
    """Scores of each model at its largest dimension, one bar per task or task type."""
    models, columns = summary.in_order(), summary.score_columns()

    def draw(axes: Any) -> None:
        # A fifth of the width stays free between the groups of bars.
        width = 0.8 / len(columns)
        for i, column in enumerate(columns):
            values = [100 * summary.shown_scores(model)[column] for model in models]
            places = [x + (i - (len(columns) - 1) / 2) * width for x in range(len(models))]
            axes.bar(places, values, width, label=column, color=COLOURS[i % len(COLOURS)])
        means = [100 * model.mean for model in models]
        axes.plot(range(len(models)), means, "o", color="black", label="mean")
        for x, mean in enumerate(means):
            axes.annotate(f"{mean:.1f}", (x, mean), textcoords="offset points", xytext=(0, 6), ha="center", fontsize=8)
        axes.set_xticks(range(len(models)), [model.name for model in models], rotation=20, ha="right")
        axes.set_ylabel("score x 100")
        axes.set_title("Score by model and stage")
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=4, frameon=False)

    return figure(8, 4.4, draw)


def score_by_dimension(summary: Summary) -> bytes:
    """Scores of the last stage by its dimensions, one line per task or task type."""
    columns, last = summary.score_columns(), summary.student.name
    points = sorted((model for model in summary.models if model.name == last), key=lambda model: model.dimension)

    def draw(axes: Any) -> None:
        dims = [point.dimension for point in points]
        for i, column in enumerate(columns):
            values = [100 * summary.shown_scores(point)[column] for point in points]
            axes.plot(dims, values, "o-", label=column, color=COLOURS[i % len(COLOURS)])
        axes.plot(dims, [100 * point.mean for point in points], "o--", color="black", label="mean")
        # Matryoshka dimensions are usually halved, so they are evenly spaced in this scale.
        axes.set_xscale("log", base=2)
        axes.set_xticks(dims, [str(d) for d in dims])
        axes.set_xlabel("dimensions")
        axes.set_ylabel("score x 100")
        axes.set_title(f"Score by dimension, {last}")
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False)

    return figure(6, 3.8, draw)


def retention(summary: Summary) -> bytes:
    """Retention of each teacher and of the concatenation, by task type."""
    references = summary.retention
    kinds = list(next(iter(references.values()), ()))

    def draw(axes: Any) -> None:
        if not references:
            axes.set_title("Retention: no teacher was scored")
            return
        width = 0.8 / len(references)
        for i, (name, shares) in enumerate(references.items()):
            places = [x + (i - (len(references) - 1) / 2) * width for x in range(len(kinds))]
            # A share of nothing has no value: its bar has no height, and no whiskers.
            values = [100 * (shares[kind].value or 0) for kind in kinds]
            spans = [[100 * end for end in shares[kind].interval or (0, 0)] for kind in kinds]
            # matplotlib takes the distances to the ends, downwards and upwards. Resamples of a skewed score may all lie
            # on one side of it: the other whisker then has no length.
            errors = [
                [max(0.0, value - low) for value, (low, _) in zip(values, spans, strict=True)],
                [max(0.0, high - value) for value, (_, high) in zip(values, spans, strict=True)],
            ]
            whiskers = {"elinewidth": 0.8, "ecolor": "#444"}
            colour = COLOURS[i % len(COLOURS)]
            bars = axes.bar(places, values, width, label=name, color=colour, yerr=errors, error_kw=whiskers)
            axes.bar_label(bars, fmt="%.0f", fontsize=8, label_type="center", color="white")
        axes.axhline(100, color="black", linewidth=0.8)
        axes.set_xticks(range(len(kinds)), kinds)
        axes.set_ylabel("student's score, % of the reference's")
        axes.set_title("Retention")
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False)

    return figure(7, 3.8, draw)


def cost_by_step(costs: Sequence[Row]) -> bytes:
    """Seconds of each step, with its peak memory written next to the bar."""

    def draw(axes: Any) -> None:
        bars = axes.barh([row["step"] for row in costs], [row["seconds"] for row in costs], color="#00beff")
        labels = [f"{row['seconds']:.1f} s, {row['peak_memory_mib']:,} MiB" for row in costs]
        axes.bar_label(bars, labels=labels, padding=3, fontsize=8)
        axes.invert_yaxis()
        # Room for the label of the longest bar.
        axes.margins(x=0.35)
        axes.set_xlabel("seconds")
        axes.set_title("Time and peak memory of each step")

    return figure(7.5, 0.3 * len(costs) + 1, draw)
