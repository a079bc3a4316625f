"""The evaluation report: JSON for scripts, Markdown for the model card, one HTML page for people."""

from __future__ import annotations

import json
from typing import Any

import pyarrow.parquet as pq

from stella_assets import plots
from stella_assets.corpus.build import FUNNEL_FILE, corpus_step
from stella_assets.evaluation import tables
from stella_assets.evaluation.score import SCORES_FILE, model_names, score_steps
from stella_assets.evaluation.summary import at_full_dimension, summarise
from stella_assets.evaluation.tasks import tasks_step
from stella_assets.manifest import Check
from stella_assets.recipe import Recipe
from stella_assets.step import Artefact, Result, Step, Workbench
from stella_assets.teachers.concatenate import concatenation_step
from stella_assets.teachers.encode import teacher_step
from stella_assets.teachers.statistics import AGREEMENT_FILE, ALL, STATS_FILE, statistics_step
from stella_assets.teachers.suspects import suspects_step
from stella_assets.training.stages import LOG_FILE, stage_step

CODE_VERSION = "1"
SUMMARY_FILE = "report.json"
HTML_FILE = "report.html"
MARKDOWN_FILE = "report.md"
PLOTS_FOLDER = "plots"


def report_step(recipe: Recipe) -> Step:
    """The step that makes `evaluation_report`."""
    suspects = suspects_step(recipe)
    stages = tuple(stage_step(recipe, number) for number in range(1, len(recipe.stages) + 1))
    return Step(
        recipe=recipe.name,
        name="evaluation_report",
        code_version=CODE_VERSION,
        settings={"name": recipe.name, "description": recipe.description, "seed": recipe.seed},
        needs=(
            corpus_step(recipe),
            *(teacher_step(recipe, teacher) for teacher in recipe.teachers),
            concatenation_step(recipe),
            statistics_step(recipe),
            *([suspects] if suspects else []),
            *stages,
            tasks_step(recipe),
            *score_steps(recipe),
        ),
        build=lambda bench: _write_report(recipe, bench),
    )


def read_summary(artefact: Artefact) -> dict[str, Any]:
    """The summary that a report holds."""
    return json.loads((artefact.folder / SUMMARY_FILE).read_text(encoding="utf-8"))


def _write_report(recipe: Recipe, bench: Workbench) -> Result:
    from jinja2 import Environment, PackageLoader, select_autoescape
    from markupsafe import Markup

    inputs = bench.inputs
    scores = [row for step in score_steps(recipe) for row in _rows(inputs[step.name], SCORES_FILE)]
    summary = summarise(recipe, scores, model_names(recipe))
    log = [row for n in range(1, len(recipe.stages) + 1) for row in _rows(inputs[f"stage_{n}"], LOG_FILE)]
    stats = [row for row in _rows(inputs["vector_stats"], STATS_FILE) if row["source"] == ALL]
    agreement = _rows(inputs["vector_stats"], AGREEMENT_FILE)
    costs = [
        {"step": name, **{k: a.manifest.about[k] for k in ("seconds", "peak_memory_mib")}} for name, a in inputs.items()
    ]
    drawn = {
        "score_by_model": plots.score_by_model(summary),
        "score_by_dimension": plots.score_by_dimension(summary),
        "retention": plots.retention(summary),
        "loss_curves": plots.loss_curves(log),
        "corpus_funnel": plots.corpus_funnel(_rows(inputs["corpus"], FUNNEL_FILE)),
        "cosine_agreement": plots.cosine_agreement(stats, agreement),
        "cost_by_step": plots.cost_by_step(costs),
    }
    lineage = [
        [name, a.digest[:12], a.manifest.identity.code_version, a.manifest.about["made_at"]]
        for name, a in inputs.items()
    ]
    content = {
        "score_table": tables.score_rows(summary),
        "retention_table": tables.retention_rows(summary),
        "vector_table": tables.vector_rows(stats),
        "lineage_table": (["artefact", "digest", "code version", "made at"], lineage),
    }
    last = at_full_dimension(summary["models"])[summary["models"][-1]["name"]]
    shared = {
        "recipe": recipe,
        "summary": summary,
        "student": last,
        "mteb_version": inputs["mteb/concatenation"].manifest.facts["mteb"],
    }
    templates = Environment(
        loader=PackageLoader("stella_assets.evaluation"), autoescape=select_autoescape(["html.j2"]), trim_blocks=True
    )
    html_tables = {name: Markup(tables.html_table(*table)) for name, table in content.items()}  # noqa: S704 (escaped there)
    uris = {name: plots.data_uri(png) for name, png in drawn.items()}
    html = templates.get_template("report.html.j2").render(**shared, **html_tables, plots=uris)
    markdown_tables = {name: tables.markdown_table(*table) for name, table in content.items()}
    markdown = templates.get_template("report.md.j2").render(**shared, **markdown_tables)

    (bench.folder / SUMMARY_FILE).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (bench.folder / HTML_FILE).write_text(html, encoding="utf-8")
    (bench.folder / MARKDOWN_FILE).write_text(markdown, encoding="utf-8")
    (bench.folder / PLOTS_FOLDER).mkdir(exist_ok=True)
    for name, png in drawn.items():
        (bench.folder / PLOTS_FOLDER / f"{name}.png").write_bytes(png)
    views = (HTML_FILE, MARKDOWN_FILE, *(f"{PLOTS_FOLDER}/{name}.png" for name in drawn))
    gained = summary["gain"] > 0
    return Result(
        facts={"mean_score": round(100 * last["mean"], 2), "gain": summary["gain"], "retention": summary["retention"]},
        checks=(
            Check("student_beats_untouched_student", gained, f"{summary['gain']:+.2f} points on the mean of the tasks"),
        ),
        views=views,
    )


def _rows(artefact: Artefact, file: str) -> list[dict[str, Any]]:
    return pq.read_table(artefact.folder / file).to_pylist()
