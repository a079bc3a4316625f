"""What goes into the report: the summary of all inputs, the speeds, the page and the plots."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from stella_assets.core.lineage_figure import lineage_figure
from stella_assets.core.step import BuildContext
from stella_assets.core.trace import Node, Tracer
from stella_assets.corpus.plots import corpus_funnel
from stella_assets.evaluation import reference_scores
from stella_assets.evaluation.ranking.comparison import RetrievalSummary
from stella_assets.evaluation.render import plots
from stella_assets.evaluation.render.page import Page
from stella_assets.evaluation.render.retrieval import retrieval_plot
from stella_assets.evaluation.scoreboard import Scoreboard, summarise
from stella_assets.evaluation.scores import BASE_MODEL, CONCATENATION, teacher_model
from stella_assets.evaluation.seeds import summarise_seeds
from stella_assets.evaluation.summary import BenchmarkSummary, ContaminationSummary, ModelSummary, Summary, TaskSummary
from stella_assets.evaluation.task_set import BETWEEN_BENCHMARKS
from stella_assets.evaluation.variants import summarise_paraphrases, summarise_quantizations
from stella_assets.storage.polars import pl
from stella_assets.storage.tables import Table
from stella_assets.teachers.plots import cosine_agreement
from stella_assets.teachers.statistics import ALL
from stella_assets.teachers.tables import TEACHER_AGREEMENT, VECTOR_STATS
from stella_assets.training.plots import loss_curves
from stella_assets.training.tables import TRAINING_LOG

if TYPE_CHECKING:
    from stella_assets.core.step import Artefact, Step
    from stella_assets.corpus.contamination import Contamination
    from stella_assets.evaluation.report_inputs import ReportInputs

OFFICIAL = ("hub", "local")
"""Where the data of mteb's own tasks is from."""


def summarise_inputs(
    recipe: str, seed: int, inputs: ReportInputs, references: pl.DataFrame, context: BuildContext
) -> Summary:
    """The summary of everything that a report reads.

    Args:
        recipe: Name of the recipe.
        seed: Of the recipe.
        inputs: The steps.
        references: Public scores: rows of model, task and score.
        context: Has their artefacts.

    Returns:
        The summary without speeds: it is hashed, and speeds differ between equal runs.
    """
    variants = context.read(inputs.variants) if inputs.variants else None
    scores = [
        *(context.read(step) for step in inputs.scores.values()),
        *([variants] if variants else []),
        *(context.read(step) for step in inputs.seeds.values()),
    ]
    board, names = Scoreboard.of(scores), list(inputs.scores)
    # The order of `inputs.scores` is the order of training, so the last model is the student.
    student = names[-1]
    found = summarise(recipe, seed, board, names)
    values: dict[str, Any] = {
        "models": tuple(_with_parameters(model, inputs, context) for model in found.models),
        "seeds": summarise_seeds(board, student, list(inputs.seeds)),
        "tasks": tuple(TaskSummary(**row) for row in context.read(inputs.tasks).rows()),
        "contamination": _contamination(inputs.contamination, found.task_types, context),
    }
    if variants:
        values["quantizations"] = summarise_quantizations(board, student, variants.variants)
        values["paraphrases"], values["paraphrased_tasks"] = summarise_paraphrases(board, student, variants.variants)
    # Benchmarks and reference scores read the tasks that were just added, so they need a second copy.
    found = found.model_copy(update=values)
    return found.model_copy(
        update={"benchmarks": _benchmarks(found), "reference_scores": _compare_with(references, found)}
    )


def measure_speeds(inputs: ReportInputs, context: BuildContext) -> dict[str, float | None]:
    """Texts per second of each model. Teachers of a concatenation encode one after the other.

    Args:
        inputs: The steps.
        context: Has their artefacts, whose manifests have the speeds.

    Returns:
        By model; None where a part of the model has no measured speed.
    """
    found: dict[str, float | None] = {}
    for model in inputs.scores:
        speeds = [metrics.get("texts_per_second") for metrics in _metrics_of(model, inputs, context)]
        # One text takes the sum of the times of all parts.
        known = [speed for speed in speeds if speed is not None]
        found[model] = round(1 / sum(1 / speed for speed in known), 1) if len(known) == len(speeds) else None
    return found


def build_page(
    description: str,
    summary: Summary,
    retrieval: RetrievalSummary | None,
    inputs: ReportInputs,
    context: BuildContext,
) -> Page:
    """The content of the page.

    Args:
        description: Of the recipe.
        summary: With speeds.
        retrieval: How retrievers rank; None without any.
        inputs: The steps.
        context: Has their artefacts.

    Returns:
        Tables and values for the templates of HTML and Markdown.
    """
    lineage = [
        [step.name, made.digest[:12], made.manifest.identity.code_version, made.manifest.run_info["made_at"]]
        for step, made in context.inputs.items()
    ]
    return Page(
        description=description,
        summary=summary,
        mteb=context.read(inputs.scores[BASE_MODEL]).metrics["mteb"],
        vector_stats=_stats_of_all_texts(inputs, context),
        lineage=lineage,
        paraphrase_dimension=context.read(inputs.variants).variants.dimension if inputs.variants else None,
        retrieval=retrieval,
    )


def draw_plots(
    summary: Summary, retrieval: RetrievalSummary | None, inputs: ReportInputs, context: BuildContext
) -> dict[str, bytes]:
    """All plots of the report.

    Args:
        summary: With speeds.
        retrieval: How retrievers rank; None without any.
        inputs: The steps.
        context: Has their artefacts.

    Returns:
        PNG files by name.
    """
    log = [row for stage in inputs.stages for row in _rows(context.artefact(stage), TRAINING_LOG)]
    agreement = _rows(context.artefact(inputs.vector_stats), TEACHER_AGREEMENT)
    costs = [
        {"step": step.name, **{key: made.manifest.run_info[key] for key in ("seconds", "peak_memory_mib")}}
        for step, made in context.inputs.items()
    ]
    return {
        "score_by_model": plots.score_by_model(summary),
        "score_by_dimension": plots.score_by_dimension(summary),
        "retention": plots.retention(summary),
        **({"retrieval": retrieval_plot(retrieval)} if retrieval else {}),
        "loss_curves": loss_curves(log),
        "corpus_funnel": corpus_funnel(context.read(inputs.corpus).funnel()),
        "cosine_agreement": cosine_agreement(_stats_of_all_texts(inputs, context), agreement),
        "cost_by_step": plots.cost_by_step(costs),
        "lineage": lineage_figure(_node(context), "png"),
    }


def _metrics_of(model: str, inputs: ReportInputs, context: BuildContext) -> Sequence[Mapping[str, Any]]:
    """Where a model's size and speed are recorded: with its vectors for a teacher, else with its scores."""
    teachers = {teacher_model(name): context.artefact(step).manifest.metrics for name, step in inputs.teachers.items()}
    # The concatenation runs every teacher that the student learns from, so it costs what they cost together.
    if model == CONCATENATION:
        joined = inputs.scores[CONCATENATION].dependencies
        return [teachers[teacher_model(name)] for name, step in inputs.teachers.items() if step in joined]
    return [teachers[model] if model in teachers else context.read(inputs.scores[model]).metrics]


def _with_parameters(model: ModelSummary, inputs: ReportInputs, context: BuildContext) -> ModelSummary:
    """With the number of parameters of everything that a model consists of."""
    total = 0
    for metrics in _metrics_of(model.name, inputs, context):
        count = metrics.get("parameters")
        if count is None:
            return model
        # A student counts its parameters per dimension, because each head has its own; a teacher has one number.
        total += int(count[str(model.dimension)] if isinstance(count, Mapping) else count)
    return model.model_copy(update={"parameters": total})


def _benchmarks(summary: Summary) -> dict[str, BenchmarkSummary]:
    tasks: dict[str, list[str]] = {}
    for row in summary.tasks:
        # A task outside of every benchmark has an empty cell, which splits into one empty name.
        for name in filter(None, row.benchmarks.split(BETWEEN_BENCHMARKS)):
            tasks.setdefault(name, []).append(row.task)
    full = summary.at_full_dimension()
    return {
        name: BenchmarkSummary(
            tasks=len(chosen),
            means={model: round(sum(full[model].scores[task] for task in chosen) / len(chosen), 6) for model in full},
        )
        for name, chosen in tasks.items()
    }


def _compare_with(references: pl.DataFrame, summary: Summary) -> Any:
    # Public scores are of mteb's own data: custom and held-out tasks cannot be compared with them.
    official = {row.task: row.type for row in summary.tasks if row.data in OFFICIAL}
    own = {f"{summary.recipe}: {m.name}, {m.dimension} dimensions": m.scores for m in summary.models}
    return reference_scores.compare(references, own, official)


def _contamination(
    step: Step[Contamination] | None, tasks: Collection[str], context: BuildContext
) -> tuple[ContaminationSummary, ...]:
    """Of each scored task that the corpus was compared with: its texts, and how many similar ones were found."""
    if step is None:
        return ()
    found = (
        context.read(step)
        .tasks()
        .group_by("task")
        .agg(
            pl.col("texts").sum(),
            pl.col("texts_dropped").sum().alias("dropped"),
            pl.col("texts_reported").sum().alias("reported"),
        )
    )
    rows = found.filter(pl.col("task").is_in(list(tasks))).sort("task").to_dicts()
    return tuple(ContaminationSummary(**row) for row in rows)


def _stats_of_all_texts(inputs: ReportInputs, context: BuildContext) -> list[dict[str, Any]]:
    return [row for row in _rows(context.artefact(inputs.vector_stats), VECTOR_STATS) if row["source"] == ALL]


def _node(context: BuildContext) -> Node:
    """The report in its own lineage, before it has a digest."""
    folders = (made.folder for made in context.inputs.values())
    return Tracer(context.workspace).join(folders, context.asset, context.key)


def _rows(artefact: Artefact, table: Table) -> list[dict[str, Any]]:
    return pq.read_table(artefact.folder / table.file).to_pylist()
