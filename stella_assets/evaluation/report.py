"""The step `evaluation_report`: JSON for scripts, Markdown for the model card, one HTML page for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from stella_assets.core.manifest import Check
from stella_assets.core.markup import markdown_table
from stella_assets.core.present import Markdown, Picture, Shown
from stella_assets.core.step import Artefact, BuildContext, CheckSpec, Presentation, Result, Step, from_folder
from stella_assets.evaluation.reference_scores import read_reference_scores, reference_scores_digest
from stella_assets.evaluation.render import tables
from stella_assets.evaluation.report_inputs import ReportInputs
from stella_assets.evaluation.summary import ALL_TASKS, Difference, Summary
from stella_assets.storage.polars import pl

if TYPE_CHECKING:
    from stella_assets.evaluation.ranking.comparison import RetrievalSummary
    from stella_assets.evaluation.settings import EvaluationSettings

CODE_VERSION = "7"
SUMMARY_FILE = "report.json"
RETRIEVAL_FILE = "retrieval.json"
"""A file of its own, and only of recipes with retrievers."""
SPEEDS_FILE = "speeds.json"
HTML_FILE = "report.html"
MARKDOWN_FILE = "report.md"
PLOTS_FOLDER = "plots"
BEATS_BASE_MODEL = CheckSpec(
    "student_beats_base_model", "The last stage scores higher than the base model as its authors ship it."
)
SHOWN_PLOTS = {
    "score_by_model": "score by model and stage",
    "score_by_dimension": "score by dimension",
    "retention": "retention by task type",
    "retrieval": "nDCG@10 of each model that ranks documents",
}
"""The plots that the UI shows, with words for those who cannot see them."""


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
        folder: Of the artefact.
    """

    folder: Path

    @cached_property
    def summary(self) -> Summary:
        """Everything that it says, with the measured speeds."""
        summary = Summary.from_json((self.folder / SUMMARY_FILE).read_text(encoding="utf-8"))
        return summary.with_speeds(json.loads((self.folder / SPEEDS_FILE).read_text(encoding="utf-8")))

    @cached_property
    def retrieval(self) -> RetrievalSummary | None:
        """How retrievers rank; None without any."""
        from stella_assets.evaluation.ranking.comparison import RetrievalSummary

        path = self.folder / RETRIEVAL_FILE
        return RetrievalSummary.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else None

    def retrieval_findings(self) -> list[str]:
        """Sentences on how well retrievers rank; none without any."""
        from stella_assets.evaluation.render.retrieval import retrieval_findings

        return list(retrieval_findings(self.retrieval)) if self.retrieval else []

    @property
    def gain(self) -> Difference:
        """The student's mean minus the base model's."""
        return self.summary.gain

    def score_rows(self) -> tables.Table:
        """Header and rows of the scores."""
        return tables.score_rows(self.summary)

    def retention_rows(self) -> tables.Table:
        """Header and rows of the retention."""
        return tables.retention_rows(self.summary)


def report_step(
    recipe: str, *, inputs: ReportInputs, description: str, seed: int, evaluation: EvaluationSettings
) -> Step[Report]:
    """The step that makes `evaluation_report`.

    Args:
        recipe: Name of the recipe.
        inputs: What it reads.
        description: Of the recipe.
        seed: Of the recipe.
        evaluation: Where the reference scores are.

    Returns:
        A step whose artefact reads as a `Report`.
    """
    return Step(
        recipe=recipe,
        name="evaluation_report",
        code_version=CODE_VERSION,
        settings={"name": recipe, "description": description, "seed": seed},
        dependencies=tuple(inputs.steps()),
        # By content, so that a changed CSV, or a package with newer scores, makes another report.
        external_versions=lambda _workspace: {"reference_scores": reference_scores_digest(_reference_file(evaluation))},
        read=from_folder(Report),
        build=partial(_write_report, recipe, description, seed, evaluation, inputs),
        presentation=Presentation(
            group="evaluation",
            description="Scores by stage and dimension, retention of each teacher, losses, funnel, time and memory.",
            kinds=frozenset({"html", "markdown"}),
            checks=(BEATS_BASE_MODEL,),
            show=_show,
        ),
    )


def reference_scores(evaluation: EvaluationSettings) -> pl.DataFrame:
    """The public scores that the recipe's are compared with.

    Args:
        evaluation: Names the file; without a name, the scores that come with this package are used.

    Returns:
        Rows of model, task and score.

    Raises:
        ReferenceScoresError: The file of `evaluation.reference_scores` cannot be used.
    """
    return read_reference_scores(_reference_file(evaluation))


def _reference_file(evaluation: EvaluationSettings) -> Path | None:
    path = evaluation.reference_scores
    return evaluation.resolve(path) if path else None


def _write_report(
    recipe: str,
    description: str,
    seed: int,
    evaluation: EvaluationSettings,
    inputs: ReportInputs,
    context: BuildContext,
) -> Result:
    # These import polars and matplotlib, which loading the definitions must not do.
    from stella_assets.evaluation.contents import (
        build_page,
        draw_plots,
        measure_speeds,
        summarise_inputs,
    )
    from stella_assets.evaluation.render.html import render_html
    from stella_assets.evaluation.render.markdown import render_markdown

    plain = summarise_inputs(recipe, seed, inputs, reference_scores(evaluation), context)
    speeds = measure_speeds(inputs, context)
    summary = plain.with_speeds(speeds)
    retrieval = _compare_retrievers(inputs, plain.task_types, context)
    page, plots = (
        build_page(description, summary, retrieval, inputs, context),
        draw_plots(summary, retrieval, inputs, context),
    )
    plot_files = {f"{PLOTS_FOLDER}/{name}.png": png for name, png in plots.items()}
    files = {
        # Speeds differ between equal runs, so they are not in the hashed summary.
        SPEEDS_FILE: json.dumps(speeds, indent=1) + "\n",
        HTML_FILE: render_html(page, plots),
        MARKDOWN_FILE: render_markdown(page),
    }
    (context.folder / PLOTS_FOLDER).mkdir(exist_ok=True)
    (context.folder / SUMMARY_FILE).write_text(plain.to_json(), encoding="utf-8")
    if retrieval:
        (context.folder / RETRIEVAL_FILE).write_text(retrieval.model_dump_json(indent=1) + "\n", encoding="utf-8")
    for name, text in files.items():
        (context.folder / name).write_text(text, encoding="utf-8")
    for name, png in plot_files.items():
        (context.folder / name).write_bytes(png)
    # HTML, Markdown and plots have times and speeds in them. What gates and cards read is the hashed JSON.
    return _result(summary, (*files, *plot_files))


def _compare_retrievers(
    inputs: ReportInputs, types: Mapping[str, str], context: BuildContext
) -> RetrievalSummary | None:
    """How retrievers rank, compared with the dense student; None for a recipe without them."""
    from stella_assets.evaluation.ranking.comparison import compare_rankers

    if not inputs.rankings:
        return None
    dense, *retrievers = (context.read(step) for step in inputs.rankings)
    return compare_rankers(dense, retrievers, types)


def _result(summary: Summary, unhashed_files: tuple[str, ...]) -> Result:
    gain, student = summary.gain, summary.student
    low, high = gain.interval
    return Result(
        metrics={
            "mean_score": round(100 * student.mean, 2),
            "mean_of_types": round(100 * student.mean_of_types, 2),
            "gain": gain.value,
            **{f"retention of {name}": shares[ALL_TASKS].value for name, shares in summary.retention.items()},
        },
        checks=(
            Check(
                BEATS_BASE_MODEL.name,
                gain.value > 0,
                f"{gain.value:+.2f} points on the mean of the tasks (95%: {low:+.2f} to {high:+.2f})",
                {"gain": gain.value},
            ),
        ),
        unhashed_files=unhashed_files,
    )


def _show(artefact: Artefact) -> Mapping[str, Shown]:
    """Read what the build has written; nothing is drawn again."""
    report = Report(artefact.folder)
    return {
        "report": artefact.folder / HTML_FILE,
        **{
            name: Picture((artefact.folder / PLOTS_FOLDER / f"{name}.png").read_bytes(), words)
            for name, words in SHOWN_PLOTS.items()
            if (artefact.folder / PLOTS_FOLDER / f"{name}.png").exists()
        },
        "scores": Markdown(markdown_table(*report.score_rows())),
    }
