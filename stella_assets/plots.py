"""The plots of the report and of the Dagster UI."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from stella_assets.core.trace import Node

Row = Mapping[str, Any]
STAGE_COLOURS = ("#4053d3", "#ddb310", "#b51d14", "#00beff", "#fb49b0", "#00b25d", "#8a8a8a")


def figure(width: float, height: float, draw: Callable[[Any], None]) -> bytes:
    """Draw one plot and give it as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height), layout="constrained")
    axes = drawing.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    FigureCanvasAgg(drawing)
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


def lineage(node: Node, kind: Literal["png", "svg"] = "svg") -> bytes:
    """An artefact and all that it rests on, sources on the left."""
    import matplotlib as mpl
    import networkx as nx
    from matplotlib.figure import Figure

    graph = nx.DiGraph()
    graph.add_nodes_from(node.all)
    graph.add_edges_from((each.name, name) for name, at in node.all.items() for each in at.inputs)
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
        box = {"boxstyle": "round,pad=0.35", "facecolor": "#f5f7fa", "edgecolor": STAGE_COLOURS[0]}
        label = f"{words}\n{at.digest[:8]}{seconds}"
        drawn = axes.text(*places[name], label, ha="center", va="center", fontsize=7, bbox=box, zorder=3)
        boxes[name] = drawn.get_bbox_patch()
    arrow = {"arrowstyle": "-|>", "color": "#9aa5b1", "shrinkA": 0, "shrinkB": 1, "linewidth": 0.8}
    for start, end in nx.transitive_reduction(graph).edges:
        ends = {"patchA": boxes[start], "patchB": boxes[end]}
        axes.annotate("", places[end], places[start], arrowprops=arrow | ends, zorder=2)
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": node.digest}):
        drawing.savefig(buffer, format=kind, dpi=90, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """A PNG as a URI that stands in HTML and Markdown by itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def score_by_model(summary: Mapping[str, Any], by: tuple[str, list[str]]) -> bytes:
    """Scores of each model at its largest dimension, a bar a task or task type (`by`)."""
    largest: dict[str, Row] = {}
    for model in summary["models"]:
        if model["dimension"] > largest.get(model["name"], {"dimension": 0})["dimension"]:
            largest[model["name"]] = model
    key, tasks = by

    def draw(axes: Any) -> None:
        width = 0.8 / len(tasks)
        for i, task in enumerate(tasks):
            values = [100 * model[key][task] for model in largest.values()]
            places = [x + (i - (len(tasks) - 1) / 2) * width for x in range(len(largest))]
            axes.bar(places, values, width, label=task, color=STAGE_COLOURS[i % len(STAGE_COLOURS)])
        means = [100 * model["mean"] for model in largest.values()]
        axes.plot(range(len(largest)), means, "o", color="black", label="mean")
        for x, mean in enumerate(means):
            axes.annotate(f"{mean:.1f}", (x, mean), textcoords="offset points", xytext=(0, 6), ha="center", fontsize=8)
        axes.set_xticks(range(len(largest)), list(largest), rotation=20, ha="right")
        axes.set_ylabel("score x 100")
        axes.set_title("Score by model and stage")
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=4, frameon=False)

    return figure(8, 4.4, draw)


def score_by_dimension(summary: Mapping[str, Any], by: tuple[str, list[str]]) -> bytes:
    """Scores of the last stage against its dimensions, a line a task or task type (`by`)."""
    key, columns = by
    last = summary["models"][-1]["name"]
    points = sorted((m for m in summary["models"] if m["name"] == last), key=lambda m: m["dimension"])

    def draw(axes: Any) -> None:
        dims = [point["dimension"] for point in points]
        for i, task in enumerate(columns):
            values = [100 * p[key][task] for p in points]
            axes.plot(dims, values, "o-", label=task, color=STAGE_COLOURS[i % len(STAGE_COLOURS)])
        axes.plot(dims, [100 * p["mean"] for p in points], "o--", color="black", label="mean")
        axes.set_xscale("log", base=2)
        axes.set_xticks(dims, [str(d) for d in dims])
        axes.set_xlabel("dimensions")
        axes.set_ylabel("score x 100")
        axes.set_title(f"Score by dimension, {last}")
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False)

    return figure(6, 3.8, draw)


def retention(summary: Mapping[str, Any]) -> bytes:
    """Retention of each teacher and of the concatenation, by task type."""
    references = summary["retention"]
    kinds = list(next(iter(references.values())))

    def draw(axes: Any) -> None:
        width = 0.8 / len(references)
        for i, (name, shares) in enumerate(references.items()):
            places = [x + (i - (len(references) - 1) / 2) * width for x in range(len(kinds))]
            values = [100 * (shares[kind]["value"] or 0) for kind in kinds]
            spans = [[100 * end for end in shares[kind]["interval"] or (0, 0)] for kind in kinds]
            errors = [
                [value - low for value, (low, _) in zip(values, spans, strict=True)],
                [high - value for value, (_, high) in zip(values, spans, strict=True)],
            ]
            whiskers = {"elinewidth": 0.8, "ecolor": "#444"}
            bars = axes.bar(places, values, width, label=name, color=STAGE_COLOURS[i], yerr=errors, error_kw=whiskers)
            axes.bar_label(bars, fmt="%.0f", fontsize=8, label_type="center", color="white")
        axes.axhline(100, color="black", linewidth=0.8)
        axes.set_xticks(range(len(kinds)), kinds)
        axes.set_ylabel("student's score, % of the reference's")
        axes.set_title("Retention")
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False)

    return figure(7, 3.8, draw)


def loss_curves(log: Sequence[Row]) -> bytes:
    """Total loss of each stage over all steps: every training step, and the dev split at checkpoints."""
    stages = sorted({row["stage"] for row in log})

    def draw(axes: Any) -> None:
        start = 0
        for i, stage in enumerate(stages):
            total = [row for row in log if row["stage"] == stage and row["term"] == "total"]
            train = [(start + r["step"], r["value"]) for r in total if r["split"] == "train"]
            dev = [(start + r["step"], r["value"]) for r in total if r["split"] == "dev"]
            axes.plot(
                *zip(*train, strict=True), color=STAGE_COLOURS[i], linewidth=0.8, alpha=0.6, label=f"{stage} train"
            )
            axes.plot(*zip(*dev, strict=True), "o-", color=STAGE_COLOURS[i], markersize=4, label=f"{stage} dev")
            start += max(r["step"] for r in total)
        axes.set_yscale("log")
        axes.set_xlabel("step, stages one after another")
        axes.set_ylabel("weighted loss")
        axes.set_title("Loss")
        axes.legend(fontsize=8, frameon=False, ncols=len(stages))

    return figure(8, 3.6, draw)


def corpus_funnel(funnel: Sequence[Row]) -> bytes:
    """Texts read, dropped by each rule, and kept."""
    counts = Counter[str]()
    for row in funnel:
        counts[row["rule"]] += row["texts"]
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


def cost_by_step(costs: Sequence[Row]) -> bytes:
    """Seconds of each step, with its peak memory written beside the bar."""

    def draw(axes: Any) -> None:
        bars = axes.barh([row["step"] for row in costs], [row["seconds"] for row in costs], color="#00beff")
        labels = [f"{row['seconds']:.1f} s, {row['peak_memory_mib']:,} MiB" for row in costs]
        axes.bar_label(bars, labels=labels, padding=3, fontsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.35)
        axes.set_xlabel("seconds")
        axes.set_title("Time and peak memory of each step")

    return figure(7.5, 0.3 * len(costs) + 1, draw)


def cosine_agreement(stats: Sequence[Row], agreement: Sequence[Row]) -> bytes:
    """Anisotropy of each set of vectors, and how far sets agree."""

    def draw(axes: Any) -> None:
        names = [row["teacher"] for row in stats] + [f"{row['a']} ~ {row['b']}" for row in agreement]
        values = [row["mean_cosine"] for row in stats] + [row["linear_cka"] for row in agreement]
        colours = ["#4053d3"] * len(stats) + ["#ddb310"] * len(agreement)
        bars = axes.barh(names, values, color=colours)
        axes.bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_title("Mean cosine of a set (blue), linear CKA of two (yellow)")

    return figure(6.5, 0.35 * (len(stats) + len(agreement)) + 0.9, draw)


def similarity_histograms(similarities: Sequence[Row]) -> bytes:
    """Cosines of pairs of texts, a line a teacher: how far a set of vectors tells texts apart."""
    by_teacher: dict[str, list[Row]] = {}
    for row in similarities:
        by_teacher.setdefault(row["teacher"], []).append(row)

    def draw(axes: Any) -> None:
        for teacher, rows in by_teacher.items():
            pairs = sum(row["pairs"] for row in rows) or 1
            edges = [rows[0]["low"], *(row["high"] for row in rows)]
            axes.stairs([100 * row["pairs"] / pairs for row in rows], edges, label=teacher, linewidth=1.5)
        axes.set_xlabel("cosine of two texts")
        axes.set_ylabel("% of pairs")
        axes.legend(fontsize=8)

    return figure(6.5, 2.8, draw)


def study_means(compared: Sequence[Row]) -> bytes:
    """Mean score of each variant, a mark a dimension; the line reaches from the lowest seed to the highest."""
    variants = list(dict.fromkeys(row["variant"] for row in compared))
    dims = sorted({row["dimension"] for row in compared}, reverse=True)

    def draw(axes: Any) -> None:
        for i, dim in enumerate(dims):
            rows = [row for row in compared if row["dimension"] == dim]
            places = [variants.index(row["variant"]) + 0.12 * (i - (len(dims) - 1) / 2) for row in rows]
            colour = STAGE_COLOURS[i % len(STAGE_COLOURS)]
            axes.hlines(places, [r["lowest"] for r in rows], [r["highest"] for r in rows], color=colour, linewidth=3)
            axes.plot([row["mean"] for row in rows], places, "o", color=colour, label=f"{dim} dims")
        axes.set_yticks(range(len(variants)), variants)
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
        axes.set_xlabel("mean score x 100; the line reaches from the lowest seed to the highest")
        axes.legend(fontsize=8, frameon=False)

    return figure(9, 0.45 * len(variants) + 1.2, draw)


def study_tasks(compared: Sequence[Row]) -> bytes:
    """Score of each variant by task, at its largest dimension, less that of the best variant."""
    largest: dict[str, Row] = {}
    for row in compared:
        if row["dimension"] > largest.get(row["variant"], {"dimension": 0})["dimension"]:
            largest[row["variant"]] = row
    best = next(iter(largest.values()))
    tasks = sorted(best["tasks"])

    def draw(axes: Any) -> None:
        for i, task in enumerate(tasks):
            values = [row["tasks"].get(task, float("nan")) - best["tasks"][task] for row in largest.values()]
            axes.plot(values, range(len(largest)), "o", color=STAGE_COLOURS[i % len(STAGE_COLOURS)], label=task)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(largest)), list(largest))
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
        axes.set_xlabel(f"points from the best, {best['variant']}")
        axes.legend(fontsize=8, frameon=False)

    return figure(9, 0.45 * len(largest) + 1.2, draw)
