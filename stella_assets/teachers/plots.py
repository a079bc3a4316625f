"""Plots of the teachers' vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stella_assets.core.figures import figure

Row = Mapping[str, Any]


def cosine_agreement(stats: Sequence[Row], agreement: Sequence[Row]) -> bytes:
    """Anisotropy of each set of vectors, and how far sets agree."""

    def draw(axes: Any) -> None:
        sets = [(row["teacher"], row["mean_cosine"], "#4053d3") for row in stats]
        pairs = [(f"{row['a']} ~ {row['b']}", row["linear_cka"], "#ddb310") for row in agreement]
        # Too few texts have no such figure.
        drawn = [bar for bar in (*sets, *pairs) if bar[1] is not None]
        names, values, colours = zip(*drawn, strict=True) if drawn else ((), (), ())
        bars = axes.barh(names, values, color=colours)
        axes.bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
        # Bars are drawn from the bottom; the first teacher belongs on top.
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_title("Mean cosine of a set (blue), linear CKA of two (yellow)")

    return figure(6.5, 0.35 * (len(stats) + len(agreement)) + 0.9, draw)


def similarity_histograms(similarities: Sequence[Row]) -> bytes:
    """Cosines of pairs of texts, one line per teacher: how far a set of vectors tells texts apart."""
    by_teacher: dict[str, list[Row]] = {}
    for row in similarities:
        by_teacher.setdefault(row["teacher"], []).append(row)

    def draw(axes: Any) -> None:
        for teacher, rows in by_teacher.items():
            # Shares, not counts: samples of different sizes stay comparable. All bins empty must not divide by 0.
            pairs = sum(row["pairs"] for row in rows) or 1
            edges = [rows[0]["low"], *(row["high"] for row in rows)]
            axes.stairs([100 * row["pairs"] / pairs for row in rows], edges, label=teacher, linewidth=1.5)
        axes.set_xlabel("cosine of two texts")
        axes.set_ylabel("% of pairs")
        axes.legend(fontsize=8)

    return figure(6.5, 2.8, draw)
