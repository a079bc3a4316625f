"""The figure of an artefact's lineage."""

from __future__ import annotations

import io
from typing import Literal

from stella_assets.core.figures import COLOURS
from stella_assets.core.lineage import Node


def lineage_figure(node: Node, kind: Literal["png", "svg"] = "svg") -> bytes:
    """An artefact and everything that it depends on, sources on the left.

    Args:
        node: The artefact.
        kind: The image format.

    Returns:
        The bytes of the image.
    """
    import matplotlib as mpl
    import networkx as nx
    from matplotlib.figure import Figure

    graph = nx.DiGraph()
    graph.add_nodes_from(node.all)
    graph.add_edges_from(node.edges)
    # One column per generation, so that every arrow points to the right.
    columns = [sorted(names, key=list(node.all).index) for names in nx.topological_generations(graph)]
    places = {name: (x, (len(names) - 1) / 2 - y) for x, names in enumerate(columns) for y, name in enumerate(names)}
    drawing = Figure(figsize=(1.75 * len(columns), 0.75 * max(map(len, columns)) + 0.4), layout="constrained")
    axes = drawing.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(-0.6, len(columns) - 0.4)
    axes.set_ylim(-max(map(len, columns)) / 2 - 0.1, max(map(len, columns)) / 2 + 0.1)
    boxes = {}
    for name, at in node.all.items():
        words = name.replace("/", "/\n") if len(name) > 16 else name
        seconds = f", {at.run_info['seconds']:,.0f} s" if at.run_info else ""
        box = {"boxstyle": "round,pad=0.35", "facecolor": "#f5f7fa", "edgecolor": COLOURS[0]}
        label = f"{words}\n{at.digest[:8]}{seconds}"
        drawn = axes.text(
            *places[name], label, ha="center", va="center", fontsize=7, bbox=box, zorder=3, parse_math=False
        )
        boxes[name] = drawn.get_bbox_patch()
    arrow = {"arrowstyle": "-|>", "color": "#9aa5b1", "shrinkA": 0, "shrinkB": 1, "linewidth": 0.8}
    # Arrows that a longer path implies are left out: a corpus is an input of nearly everything.
    for start, end in nx.transitive_reduction(graph).edges:
        ends = {"patchA": boxes[start], "patchB": boxes[end]}
        axes.annotate("", places[end], places[start], arrowprops=arrow | ends, zorder=2)
    buffer = io.BytesIO()
    # Text stays text, so that it can be searched. A fixed salt and no date give equal bytes for equal lineage.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": node.digest}):
        drawing.savefig(buffer, format=kind, dpi=90, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()
