"""The evaluation report: JSON for scripts, Markdown for the model card, one HTML page for people."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from stella_assets import plots
from stella_assets.core.manifest import Check, digest
from stella_assets.core.step import Artefact, BuildContext, Result, Step, those_of
from stella_assets.core.trace import Node, Tracer
from stella_assets.corpus.build import FUNNEL_FILE, corpus_step
from stella_assets.corpus.contamination import TASKS_FILE as CONTAMINATION_FILE
from stella_assets.corpus.contamination import contamination_step
from stella_assets.evaluation import tables
from stella_assets.evaluation.reference_scores import compare, read_published
from stella_assets.evaluation.score import SAMPLES_FILE, SCORES_FILE, model_names, score_steps
from stella_assets.evaluation.seeds import seeds_step, summarise_seeds
from stella_assets.evaluation.summary import Scoreboard, at_full_dimension, summarise
from stella_assets.evaluation.tasks import BETWEEN_BENCHMARKS, TASKS_FILE, tasks_step
from stella_assets.evaluation.variants import summarise_variants, variants_step
from stella_assets.recipe import Recipe
from stella_assets.teachers.concatenate import concatenation_step
from stella_assets.teachers.encode import teacher_step
from stella_assets.teachers.statistics import AGREEMENT_FILE, ALL, STATS_FILE, statistics_step
from stella_assets.teachers.suspects import suspects_step
from stella_assets.training.stages import LOG_FILE, stage_step

CODE_VERSION = "3"
SUMMARY_FILE = "report.json"
SPEEDS_FILE = "speeds.json"
HTML_FILE = "report.html"
MARKDOWN_FILE = "report.md"
PLOTS_FOLDER = "plots"


def report_step(recipe: Recipe) -> Step:
    """The step that makes `evaluation_report`."""
    stages = tuple(stage_step(recipe, number) for number in range(1, len(recipe.stages) + 1))
    return Step(
        recipe=recipe.name,
        name="evaluation_report",
        code_version=CODE_VERSION,
        settings={"name": recipe.name, "description": recipe.description, "seed": recipe.seed},
        needs=those_of(
            corpus_step(recipe),
            contamination_step(recipe) if recipe.corpus.decontaminate else None,
            *(teacher_step(recipe, teacher) for teacher in recipe.teachers),
            concatenation_step(recipe),
            statistics_step(recipe),
            suspects_step(recipe),
            *stages,
            tasks_step(recipe),
            *score_steps(recipe),
            *_more_scores(recipe),
        ),
        sources=lambda _workspace: {"published": digest(published_scores(recipe).to_dict(as_series=False))},
        build=lambda context: _write_report(recipe, context),
    )


def _more_scores(recipe: Recipe) -> tuple[Step, ...]:
    """What is scored beside the models themselves."""
    return those_of(variants_step(recipe), seeds_step(recipe))


def published_scores(recipe: Recipe) -> pl.DataFrame:
    """The public scores that the recipe's stand beside."""
    wanted = recipe.evaluation
    return read_published(wanted.resolve(wanted.reference_scores) if wanted.reference_scores else None)


def read_summary(artefact: Artefact) -> dict[str, Any]:
    """The summary that a report holds, with the speeds that were measured beside it."""
    summary = json.loads((artefact.folder / SUMMARY_FILE).read_text(encoding="utf-8"))
    return _with_speeds(summary, json.loads((artefact.folder / SPEEDS_FILE).read_text(encoding="utf-8")))


def _with_speeds(summary: dict[str, Any], speeds: Mapping[str, float | None]) -> dict[str, Any]:
    models = [model | {"texts_per_second": speeds[model["name"]]} for model in summary["models"]]
    return summary | {"models": models}


def scoreboard(recipe: Recipe, inputs: Mapping[str, Artefact], more: Sequence[Step] = ()) -> Scoreboard:
    """The scores of all models and of `more` that were scored, with their samples."""
    artefacts = [inputs[step.name] for step in (*score_steps(recipe), *more)]
    scores = pl.concat(pl.read_parquet(artefact.folder / SCORES_FILE) for artefact in artefacts)
    samples = pl.concat(pl.read_parquet(artefact.folder / SAMPLES_FILE) for artefact in artefacts)
    by_model = {name: samples.filter(pl.col("model") == name) for name in scores["model"].unique()}
    names = model_names(recipe)
    order = [*names, *(name for name in scores["model"].unique(maintain_order=True) if name not in names)]
    return Scoreboard(scores.to_dicts(), by_model, order)


def _summarise(recipe: Recipe, inputs: Mapping[str, Artefact]) -> dict[str, Any]:
    """The summary of the scores, and what stands beside them: tasks, sizes, speeds, contamination, public scores."""
    board = scoreboard(recipe, inputs, _more_scores(recipe))
    summary = summarise(recipe, board, model_names(recipe))
    summary |= summarise_variants(recipe, board) | summarise_seeds(recipe, board)
    summary["tasks"] = _rows(inputs["evaluation_tasks"], TASKS_FILE)
    for model in summary["models"]:
        model["parameters"] = _parameters(recipe, inputs, model["name"], model["dimension"])
    summary["benchmarks"] = _benchmarks(summary)
    summary["contamination"] = _contamination(recipe, inputs, summary["task_types"])
    official = {row["task"]: row["type"] for row in summary["tasks"] if row["data"] in ("hub", "local")}
    own = {f"{recipe.name}: {m['name']}, {m['dimension']} dimensions": m["scores"] for m in summary["models"]}
    summary["published"] = compare(published_scores(recipe), own, official)
    return summary


def _facts(recipe: Recipe, inputs: Mapping[str, Artefact], model: str) -> list[Mapping[str, Any]]:
    """What is known of a model's size and speed; of all teachers where it is their concatenation."""
    if model == "concatenation":
        return [inputs[f"teacher_vectors/{teacher.name}"].manifest.metrics for teacher in recipe.teachers]
    name = model.replace("teacher/", "teacher_vectors/") if model.startswith("teacher/") else f"mteb/{model}"
    return [inputs[name].manifest.metrics]


def _parameters(recipe: Recipe, inputs: Mapping[str, Artefact], model: str, dimension: int) -> int | None:
    """Of all that a model is made of; None for teachers whose artefacts are older than this figure."""
    counts: list[Any] = [metrics.get("parameters") for metrics in _facts(recipe, inputs, model)]
    if None in counts:
        return None
    return sum(int(count[str(dimension)] if isinstance(count, Mapping) else count) for count in counts)


def _speed(recipe: Recipe, inputs: Mapping[str, Artefact], model: str) -> float | None:
    """Texts a second; teachers of a concatenation encode one after the other."""
    speeds: list[Any] = [metrics.get("texts_per_second") for metrics in _facts(recipe, inputs, model)]
    return None if None in speeds else round(1 / sum(1 / speed for speed in speeds), 1)


def _benchmarks(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Mean over the tasks of each benchmark that the recipe names, of every model at its largest dimension."""
    tasks: dict[str, list[str]] = {}
    for row in summary["tasks"]:
        for name in filter(None, row["benchmarks"].split(BETWEEN_BENCHMARKS)):
            tasks.setdefault(name, []).append(row["task"])
    full = at_full_dimension(summary["models"])
    return {
        name: {
            "tasks": len(chosen),
            "means": {m: round(sum(full[m]["scores"][t] for t in chosen) / len(chosen), 6) for m in full},
        }
        for name, chosen in tasks.items()
    }


def _contamination(recipe: Recipe, inputs: Mapping[str, Artefact], tasks: Collection[str]) -> list[dict[str, Any]]:
    """Of each scored task that the corpus was held against: its texts, and what was found of them."""
    if not recipe.corpus.decontaminate:
        return []
    found = (
        pl.read_parquet(inputs["contamination"].folder / CONTAMINATION_FILE)
        .group_by("task")
        .agg(
            pl.col("texts").sum(),
            pl.col("texts_dropped").sum().alias("dropped"),
            pl.col("texts_reported").sum().alias("reported"),
        )
    )
    return found.filter(pl.col("task").is_in(list(tasks))).sort("task").to_dicts()


def _write_report(recipe: Recipe, context: BuildContext) -> Result:
    from jinja2 import Environment, PackageLoader, select_autoescape
    from markupsafe import Markup

    inputs = context.inputs
    summary = _summarise(recipe, inputs)
    (context.folder / SUMMARY_FILE).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    speeds = {name: _speed(recipe, inputs, name) for name in model_names(recipe)}
    (context.folder / SPEEDS_FILE).write_text(json.dumps(speeds, indent=1) + "\n", encoding="utf-8")
    summary = _with_speeds(summary, speeds)
    log = [row for n in range(1, len(recipe.stages) + 1) for row in _rows(inputs[f"stage_{n}"], LOG_FILE)]
    stats = [row for row in _rows(inputs["vector_stats"], STATS_FILE) if row["source"] == ALL]
    agreement = _rows(inputs["vector_stats"], AGREEMENT_FILE)
    costs = [
        {"step": name, **{k: a.manifest.run_info[k] for k in ("seconds", "peak_memory_mib")}}
        for name, a in inputs.items()
    ]
    drawn = {
        "score_by_model": plots.score_by_model(summary, tables.score_columns(summary)),
        "score_by_dimension": plots.score_by_dimension(summary, tables.score_columns(summary)),
        "retention": plots.retention(summary),
        "loss_curves": plots.loss_curves(log),
        "corpus_funnel": plots.corpus_funnel(_rows(inputs["corpus"], FUNNEL_FILE)),
        "cosine_agreement": plots.cosine_agreement(stats, agreement),
        "cost_by_step": plots.cost_by_step(costs),
        "lineage": plots.lineage(_node(context), "png"),
    }
    lineage = [
        [name, a.digest[:12], a.manifest.identity.code_version, a.manifest.run_info["made_at"]]
        for name, a in inputs.items()
    ]
    content = {
        "score_table": tables.score_rows(summary),
        "task_table": tables.task_rows(summary),
        "cost_table": tables.cost_rows(summary),
        "retention_table": tables.retention_rows(summary),
        "vector_table": tables.vector_rows(stats),
        "lineage_table": (["artefact", "digest", "code version", "made at"], lineage),
    }
    if summary["benchmarks"]:
        content["benchmark_table"] = tables.benchmark_rows(summary)
    if summary["quantizations"]:
        content["quantised_table"] = tables.quantised_rows(summary)
    if summary["seeds"]:
        content["seed_table"] = tables.seed_rows(summary)
    if summary["paraphrases"]:
        content["paraphrase_table"] = tables.paraphrase_rows(summary)
    if summary["contamination"]:
        content["contamination_table"] = tables.contamination_rows(summary)
    if summary["published"]:
        content["published_table"] = tables.published_rows(summary)
    last = at_full_dimension(summary["models"])[summary["models"][-1]["name"]]
    shared = {
        "recipe": recipe,
        "summary": summary,
        "student": last,
        "mteb_version": inputs["mteb/concatenation"].manifest.metrics["mteb"],
        "local": any(row["data"] == "local" for row in summary["tasks"]),
    }
    templates = Environment(
        loader=PackageLoader("stella_assets.evaluation"), autoescape=select_autoescape(["html.j2"]), trim_blocks=True
    )
    html_tables = {name: Markup(tables.html_table(*table)) for name, table in content.items()}  # noqa: S704 (escaped there)
    uris = {name: plots.data_uri(png) for name, png in drawn.items()}
    html = templates.get_template("report.html.j2").render(**shared, **html_tables, plots=uris)
    markdown_tables = {name: tables.markdown_table(*table) for name, table in content.items()}
    markdown = templates.get_template("report.md.j2").render(**shared, **markdown_tables)

    (context.folder / HTML_FILE).write_text(html, encoding="utf-8")
    (context.folder / MARKDOWN_FILE).write_text(markdown, encoding="utf-8")
    (context.folder / PLOTS_FOLDER).mkdir(exist_ok=True)
    for name, png in drawn.items():
        (context.folder / PLOTS_FOLDER / f"{name}.png").write_bytes(png)
    views = (SPEEDS_FILE, HTML_FILE, MARKDOWN_FILE, *(f"{PLOTS_FOLDER}/{name}.png" for name in drawn))
    gain = summary["gain"]
    shares = {name: by_type["mean"]["value"] for name, by_type in summary["retention"].items()}
    return Result(
        metrics={
            "mean_score": round(100 * last["mean"], 2),
            "mean_of_types": round(100 * last["mean_of_types"], 2),
            "gain": gain["value"],
            **{f"retention of {name}": share for name, share in shares.items()},
        },
        checks=(
            Check(
                "student_beats_base_model",
                gain["value"] > 0,
                f"{gain['value']:+.2f} points on the mean of the tasks (95%: {gain['interval'][0]:+.2f} to "
                f"{gain['interval'][1]:+.2f})",
                {"gain": gain["value"]},
            ),
        ),
        unhashed_files=views,
    )


def _node(context: BuildContext) -> Node:
    """The report itself in its lineage, before it has a digest."""
    tracer = Tracer(context.workspace)
    inputs = tuple(tracer.of_folder(artefact.folder) for artefact in context.inputs.values())
    return Node("evaluation_report", context.key, inputs=inputs)


def _rows(artefact: Artefact, file: str) -> list[dict[str, Any]]:
    return pq.read_table(artefact.folder / file).to_pylist()
