"""Plots of the corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from stella_assets.core.figures import figure

Row = Mapping[str, Any]


def corpus_funnel(funnel: Sequence[Row]) -> bytes:
    """Texts read, dropped by each rule, and kept.

    Args:
        funnel: Rows with `source`, `rule` and `texts`; sources are added up.

    Returns:
        An encoded picture.
    """
    counts = Counter[str]()
    for row in funnel:
        counts[row["rule"]] += row["texts"]
    # Rules by how much they drop, between what was read and what is kept.
    rules = [rule for rule, _ in counts.most_common() if rule not in {"read", "kept"}]
    shown = {rule: counts[rule] for rule in ("read", *rules, "kept")}

    def draw(axes: Any) -> None:
        colours = ["#4053d3" if rule in {"read", "kept"} else "#b51d14" for rule in shown]
        bars = axes.barh(list(shown), list(shown.values()), color=colours)
        axes.bar_label(bars, labels=[f"{count:,}" for count in shown.values()], padding=3, fontsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_title("Corpus: texts read, dropped and kept")

    return figure(6.5, 1.2 + 0.28 * len(shown), draw)
