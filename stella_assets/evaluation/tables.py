"""Tables in Markdown and HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table, the first column left, the others right."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)])


def html_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """An HTML table."""
    head = "".join(f"<th>{escape(str(cell))}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def score_rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the score table, in hundredths."""
    tasks = list(summary["task_types"])
    rows = [
        [m["name"], str(m["dimension"]), *(f"{100 * m['scores'][t]:.2f}" for t in tasks), f"{100 * m['mean']:.2f}"]
        for m in summary["models"]
    ]
    return ["model", "dimension", *tasks, "mean"], rows


def retention_rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the retention table, in per cent."""
    kinds = list(next(iter(summary["retention"].values())))
    rows = [[name, *(f"{100 * shares[k]:.1f}" for k in kinds)] for name, shares in summary["retention"].items()]
    return ["retention of", *kinds], rows


def vector_rows(stats: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
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
