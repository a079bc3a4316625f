"""Figures: the shared style of all plots."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

COLOURS = ("#4053d3", "#ddb310", "#b51d14", "#00beff", "#fb49b0", "#00b25d", "#8a8a8a")
"""Of series, in this order."""


def figure(width: float, height: float, draw: Callable[[Any], None]) -> bytes:
    """Draw one plot and give it as PNG.

    Args:
        width: In inches, at 90 dots per inch.
        height: In inches.
        draw: Draws into a `matplotlib.axes.Axes`.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot: it keeps figures in global state, is not safe in threads, and may choose a display.
    buffer = io.BytesIO()
    # Labels are data, in which `$` begins no formula.
    with mpl.rc_context({"text.parse_math": False}):
        drawing = Figure(figsize=(width, height), layout="constrained")
        axes = drawing.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        FigureCanvasAgg(drawing)
        drawing.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
