"""The tables of the report: header and rows, for Markdown, HTML and the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stella_assets.evaluation.summary import ALL_TASKS, Difference, Interval, ReferenceSummary, Summary

Table = tuple[list[str], list[list[str]]]
"""Header and rows."""

INTERVAL = "95% of resamples"


def score_rows(summary: Summary) -> Table:
    """Each model at each dimension, in hundredths: by task, or by task type where there are many tasks."""
    columns = summary.score_columns()
    rows = [
        [
            model.name,
            str(model.dimension),
            *(_points(summary.shown_scores(model)[column]) for column in columns),
            _points(model.mean),
            _range(model.interval),
        ]
        for model in summary.models
    ]
    return ["model", "dimension", *columns, "mean", INTERVAL], rows


def task_rows(summary: Summary) -> Table:
    """Each task, in hundredths: every model at its largest dimension."""
    models = summary.in_order()
    tasks = {row.task: row for row in summary.tasks}
    rows = [
        [task, kind, tasks[task].data, *(_points(model.scores[task]) for model in models)]
        for task, kind in summary.task_types.items()
    ]
    return ["task", "type", "data", *(model.name for model in models)], rows


def retention_rows(summary: Summary) -> Table:
    """Retention of each teacher by task type, in per cent, with the interval of the mean."""
    kinds = list(next(iter(summary.retention.values()), ()))  # of teachers that were not scored nothing is known
    rows = [
        [name, *(_points(shares[kind].value, 1) for kind in kinds), _range(shares[ALL_TASKS].interval, 1)]
        for name, shares in summary.retention.items()
    ]
    return ["retention of", *kinds, INTERVAL], rows


def benchmark_rows(summary: Summary) -> Table:
    """Mean over the tasks of each benchmark, of every model at its largest dimension."""
    names = list(next(iter(summary.benchmarks.values())).means)
    rows = [
        [name, str(benchmark.tasks), *(_points(benchmark.means[model]) for model in names)]
        for name, benchmark in summary.benchmarks.items()
    ]
    return ["benchmark", "tasks", *names], rows


def cost_rows(summary: Summary) -> Table:
    """Size and speed of each model."""
    rows = [
        [
            model.name,
            str(model.dimension),
            _points(model.mean),
            # `and` keeps None, which becomes an empty cell.
            _count(model.parameters and model.parameters / 1e6, 1),
            _count(model.texts_per_second, 0),
            # Four bytes per dimension: vectors as float32, before quantization.
            f"{4 * model.dimension:,}",
        ]
        for model in summary.models
    ]
    return ["model", "dimension", "mean", "million parameters", "texts per second here", "bytes per vector"], rows


def quantization_rows(summary: Summary) -> Table:
    """The last stage with vectors of fewer bits."""
    rows = [
        [row.precision, str(row.dimension), f"{row.bytes:,}", _points(row.mean), *_difference(row.difference)]
        for row in summary.quantizations
    ]
    return ["vectors", "dimension", "bytes", "mean", "difference to float32", INTERVAL], rows


def seed_rows(summary: Summary) -> Table:
    """The last stage over seeds: mean and standard deviation of the mean, and the standard deviation by task."""
    tasks = list(summary.task_types)
    rows = [
        [
            str(row.dimension),
            str(row.seeds),
            *(_points(value) for value in (row.mean, row.spread, row.lowest, row.highest)),
            *(_points(row.tasks[task]) for task in tasks),
        ]
        for row in summary.seeds
    ]
    return ["dimension", "seeds", "mean", "spread", "lowest", "highest", *(f"spread of {task}" for task in tasks)], rows


def paraphrase_rows(summary: Summary) -> Table:
    """The last stage with paraphrased prompts."""
    rows = [
        [row.name.replace("_", " "), _points(row.mean), *_difference(row.difference)] for row in summary.paraphrases
    ]
    return ["prompts", "mean", "difference to its own", INTERVAL], rows


def reference_rows(references: ReferenceSummary) -> Table:
    """Public models and the recipe's, on the tasks that both have."""
    kinds = list(references.models[0].types)
    rows = [
        [model.name, *(_points(model.types[kind]) for kind in kinds), _points(model.mean)]
        for model in references.models
    ]
    return ["model", *kinds, "mean"], rows


def contamination_rows(summary: Summary) -> Table:
    """Texts of the corpus that were dropped because they are similar to a text of an evaluated task."""
    rows = [[row.task, f"{row.texts:,}", f"{row.dropped:,}"] for row in summary.contamination]
    return ["task", "evaluation texts", "dropped corpus texts"], rows


def vector_rows(stats: Sequence[Mapping[str, Any]]) -> Table:
    """Statistics of the teachers' vectors.

    Args:
        stats: Rows of the table `vector_stats`.
    """
    rows = [
        [
            row["teacher"],
            f"{row['rows']:,}",
            str(row["dim"]),
            f"{row['mean_cosine']:.4f}",
            f"{row['effective_rank']:.1f}",
            f"{row['norm_mean']:.6f}",
        ]
        for row in stats
    ]
    return ["vectors", "rows", "dimensions", "mean cosine", "effective rank", "mean norm"], rows


def _points(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{100 * value:.{digits}f}"


def _range(interval: Interval | None, digits: int = 2) -> str:
    return "" if interval is None else f"{100 * interval[0]:.{digits}f} to {100 * interval[1]:.{digits}f}"


def _difference(difference: Difference) -> tuple[str, str]:
    low, high = difference.interval
    # A difference is in points already; shares and scores are multiplied by 100 above.
    return f"{difference.value:+.2f}", f"{low:.2f} to {high:.2f}"


def _count(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
