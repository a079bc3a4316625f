"""The assets `evaluation_tasks`, `mteb/<model>` and `evaluation_report`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from stella_assets import plots
from stella_assets.assets import picture, step_asset
from stella_assets.core.step import Artefact
from stella_assets.evaluation import tables
from stella_assets.evaluation.report import HTML_FILE, read_summary, report_step
from stella_assets.evaluation.score import score_steps
from stella_assets.evaluation.seeds import seeds_step
from stella_assets.evaluation.tasks import tasks_step
from stella_assets.evaluation.variants import variants_step
from stella_assets.recipe import Recipe

MTEB = "[mteb](https://github.com/embeddings-benchmark/mteb)"


def evaluation_assets(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """Task data, one asset a scored model, and the report."""
    tasks = step_asset(
        tasks_step(recipe),
        group="evaluation",
        kinds={"parquet"},
        description=f"{MTEB} tasks of three types from the held-out texts.",
        checks={"no_query_was_trained_on": "No retrieval query is a text of train or dev."},
        soon=True,
    )
    scores = [
        step_asset(
            step,
            group="evaluation",
            kinds={"mteb"},
            description=f"{MTEB} scores of `{step.settings['model']}` at each of its dimensions.",
            checks={"scores_are_in_range": "Every score lies between 0 and 1."},
            show=_show_scores,
        )
        for step in score_steps(recipe)
    ]
    more = (
        (
            variants_step(recipe),
            {"mteb"},
            f"{MTEB} scores of the last stage with vectors of fewer bits and with other prompts.",
        ),
        (
            seeds_step(recipe),
            {"mteb", "pytorch"},
            f"The stages trained with other seeds, and the {MTEB} scores of the last one.",
        ),
    )
    scores += [
        step_asset(
            step,
            group="evaluation",
            kinds=kinds,
            description=description,
            checks={"scores_are_in_range": "Every score lies between 0 and 1."},
            show=_show_variants,
        )
        for step, kinds, description in more
        if step
    ]
    report = step_asset(
        report_step(recipe),
        group="evaluation",
        kinds={"html", "markdown"},
        description="Scores by stage and dimension, retention of each teacher, losses, funnel, time and memory.",
        checks={"student_beats_base_model": "The last stage scores higher than before all training."},
        show=_show_report,
    )
    return [tasks, *scores, report]


def _show_scores(artefact: Artefact) -> Mapping[str, Any]:
    rows = artefact.manifest.metrics["scores"]
    table = tables.markdown_table(
        ["task", "dimension", "score x 100"],
        [[row["task"], row["dimension"], f"{100 * row['score']:.2f}"] for row in rows],
    )
    largest = max(row["dimension"] for row in rows)
    plain = {row["task"]: 100 * row["score"] for row in rows if row["dimension"] == largest}
    return {"scores": dg.MetadataValue.md(table), **plain}


def _show_variants(artefact: Artefact) -> Mapping[str, Any]:
    rows = artefact.manifest.metrics["scores"]
    cells = [[row["model"], row["dimension"], row["task"], f"{100 * row['score']:.2f}"] for row in rows]
    return {"scores": dg.MetadataValue.md(tables.markdown_table(["model", "dimension", "task", "score x 100"], cells))}


def _show_report(artefact: Artefact) -> Mapping[str, Any]:
    summary = read_summary(artefact)
    return {
        "report": dg.MetadataValue.path(str(artefact.folder / HTML_FILE)),
        "score_by_model": picture(
            plots.score_by_model(summary, tables.score_columns(summary)), "score by model and stage"
        ),
        "score_by_dimension": picture(
            plots.score_by_dimension(summary, tables.score_columns(summary)), "score by dimension"
        ),
        "retention": picture(plots.retention(summary), "retention by task type"),
        "scores": dg.MetadataValue.md(tables.markdown_table(*tables.score_rows(summary))),
    }
