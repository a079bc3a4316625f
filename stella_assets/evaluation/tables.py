"""Tables in Markdown and HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

MOST_TASKS = 6
"""With more tasks than these, scores are shown by task type."""

Table = tuple[list[str], list[list[str]]]
"""Header and rows."""


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table, the first column left, the others right."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)])


def html_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """An HTML table."""
    head = "".join(f"<th>{escape(str(cell))}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def score_columns(summary: Mapping[str, Any]) -> tuple[str, list[str]]:
    """What a model's scores are shown by, `scores` (of tasks) or `types`, and the names of those."""
    if len(summary["task_types"]) <= MOST_TASKS:
        return "scores", list(summary["task_types"])
    return "types", list(summary["models"][0]["types"])


def score_rows(summary: Mapping[str, Any]) -> Table:
    """Each model at each dimension, in hundredths: by task, or by task type where there are many tasks."""
    key, columns = score_columns(summary)
    rows = [
        [
            m["name"],
            str(m["dimension"]),
            *(_points(m[key][c]) for c in columns),
            _points(m["mean"]),
            _range(m["interval"]),
        ]
        for m in summary["models"]
    ]
    return ["model", "dimension", *columns, "mean", "95% of resamples"], rows


def task_rows(summary: Mapping[str, Any]) -> Table:
    """Each task, in hundredths: every model at its largest dimension."""
    from stella_assets.evaluation.summary import at_full_dimension

    models = at_full_dimension(summary["models"])
    names = list(dict.fromkeys(model["name"] for model in summary["models"]))
    tasks = {row["task"]: row for row in summary["tasks"]}
    rows = [
        [task, kind, tasks[task]["data"], *(_points(models[name]["scores"][task]) for name in names)]
        for task, kind in summary["task_types"].items()
    ]
    return ["task", "type", "data", *names], rows


def retention_rows(summary: Mapping[str, Any]) -> Table:
    """Retention of each teacher by task type, in per cent, with the interval of the mean."""
    kinds = list(next(iter(summary["retention"].values())))
    rows = [
        [name, *(_points(shares[kind]["value"], 1) for kind in kinds), _range(shares["mean"]["interval"], 1)]
        for name, shares in summary["retention"].items()
    ]
    return ["retention of", *kinds, "95% of resamples"], rows


def benchmark_rows(summary: Mapping[str, Any]) -> Table:
    """Mean over the tasks of each benchmark, of every model at its largest dimension."""
    names = list(next(iter(summary["benchmarks"].values()))["means"])
    rows = [
        [name, str(benchmark["tasks"]), *(_points(benchmark["means"][model]) for model in names)]
        for name, benchmark in summary["benchmarks"].items()
    ]
    return ["benchmark", "tasks", *names], rows


def cost_rows(summary: Mapping[str, Any]) -> Table:
    """What each model costs where it is used."""
    rows = [
        [
            model["name"],
            str(model["dimension"]),
            _points(model["mean"]),
            _count(model["parameters"] and model["parameters"] / 1e6, 1),
            _count(model["texts_per_second"], 0),
            f"{4 * model['dimension']:,}",
        ]
        for model in summary["models"]
    ]
    return ["model", "dimension", "mean", "million parameters", "texts a second here", "bytes of a vector"], rows


def quantised_rows(summary: Mapping[str, Any]) -> Table:
    """The last stage with vectors of fewer bits."""
    rows = [
        [
            row["precision"],
            str(row["dimension"]),
            f"{row['bytes']:,}",
            _points(row["mean"]),
            f"{row['difference']['value']:+.2f}",
            _range([end / 100 for end in row["difference"]["interval"]]),
        ]
        for row in summary["quantizations"]
    ]
    return ["vectors", "dimension", "bytes", "mean", "against float32", "95% of resamples"], rows


def seed_rows(summary: Mapping[str, Any]) -> Table:
    """The last stage over seeds: mean and standard deviation of the mean, and the latter of each task."""
    tasks = list(summary["task_types"])
    rows = [
        [
            str(row["dimension"]),
            str(row["seeds"]),
            *(_points(row[name]) for name in ("mean", "spread", "lowest", "highest")),
            *(_points(row["tasks"][task]) for task in tasks),
        ]
        for row in summary["seeds"]
    ]
    return ["dimension", "seeds", "mean", "spread", "lowest", "highest", *(f"spread of {task}" for task in tasks)], rows


def paraphrase_rows(summary: Mapping[str, Any]) -> Table:
    """The last stage with its prompts in other words."""
    rows = [
        [
            row["name"].replace("_", " "),
            _points(row["mean"]),
            f"{row['difference']['value']:+.2f}",
            _range([end / 100 for end in row["difference"]["interval"]]),
        ]
        for row in summary["paraphrases"]
    ]
    return ["prompts", "mean", "against its own", "95% of resamples"], rows


def published_rows(summary: Mapping[str, Any]) -> Table:
    """Other models' public scores on the tasks that both have, beside the recipe's models."""
    published = summary["published"]
    kinds = list(published["models"][0]["types"])
    rows = [
        [model["name"], *(_points(model["types"][kind]) for kind in kinds), _points(model["mean"])]
        for model in published["models"]
    ]
    return ["model", *kinds, "mean"], rows


def contamination_rows(summary: Mapping[str, Any]) -> Table:
    """What was found of each evaluated task in the texts of the corpus, before it was taken out."""
    rows = [[row["task"], *(f"{row[name]:,}" for name in ("texts", "dropped"))] for row in summary["contamination"]]
    return ["task", "evaluation texts", "corpus texts taken out"], rows


def vector_rows(stats: Sequence[Mapping[str, Any]]) -> Table:
    """Header and rows of the vector statistics."""
    rows = [
        [
            r["teacher"],
            f"{r['rows']:,}",
            r["dim"],
            f"{r['mean_cosine']:.4f}",
            f"{r['effective_rank']:.1f}",
            f"{r['norm_mean']:.6f}",
        ]
        for r in stats
    ]
    return ["vectors", "rows", "dims", "mean cosine", "effective rank", "mean norm"], rows


def _points(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{100 * value:.{digits}f}"


def _range(interval: Sequence[float] | None, digits: int = 2) -> str:
    return "" if interval is None else f"{100 * interval[0]:.{digits}f} to {100 * interval[1]:.{digits}f}"


def _count(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
