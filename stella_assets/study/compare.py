"""Comparing variants: the mean of each over seeds, and its standard deviation."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from stella_assets.evaluation.seeds import spread

Row = dict[str, Any]


def compare(rows: Sequence[Row]) -> list[Row]:
    """Mean and standard deviation over seeds of each variant and dimension, the best first.

    Args:
        rows: Rows of the table `study`.

    Returns:
        One row per variant and dimension. `mean` and the tasks are in hundredths; `spread` is the standard deviation
        over seeds of the mean over tasks, None for one seed.
    """
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["variant"], row["dimension"]), []).append(row)
    compared = []
    for (variant, dimension), members in groups.items():
        tasks = sorted({row["task"] for row in members})
        # The mean over tasks comes first: its spread over seeds includes how tasks vary together.
        by_seed = [
            100 * statistics.mean(row["score"] for row in members if row["seed"] == seed)
            for seed in sorted({row["seed"] for row in members})
        ]
        compared.append(
            {
                "variant": variant,
                "dimension": dimension,
                **spread(by_seed),
                "tasks": {t: 100 * statistics.mean(r["score"] for r in members if r["task"] == t) for t in tasks},
                "dev_neighbours": statistics.mean(row["dev_neighbours"] for row in members),
            }
        )
    # The order is decided at each variant's full dimension, and a variant's smaller dimensions follow it.
    largest = {variant: max(d for v, d in groups if v == variant) for variant, _ in groups}
    best = {row["variant"]: row["mean"] for row in compared if row["dimension"] == largest[row["variant"]]}
    return sorted(compared, key=lambda row: (-best[row["variant"]], row["variant"], -row["dimension"]))


def table_rows(compared: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table that people read.

    Args:
        compared: As `compare` gives them.

    Returns:
        The header, and one list of cells per variant and dimension; a cell is empty where there is no value.
    """
    tasks = sorted({task for row in compared for task in row["tasks"]})
    rows = [
        [
            row["variant"],
            str(row["dimension"]),
            str(row["seeds"]),
            f"{row['mean']:.2f}",
            "" if row["spread"] is None else f"{row['spread']:.2f}",
            *(f"{row['tasks'][task]:.2f}" if task in row["tasks"] else "" for task in tasks),
            f"{100 * row['dev_neighbours']:.1f}%",
        ]
        for row in compared
    ]
    return ["variant", "dimension", "seeds", "mean", "spread", *tasks, "teachers' neighbours"], rows
