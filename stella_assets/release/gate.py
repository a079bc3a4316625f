"""The gate: what a release must show before it is made. `release/verdicts.py` has the rules."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace

import pyarrow.parquet as pq

from stella_assets.core.errors import UserError
from stella_assets.core.manifest import Check
from stella_assets.core.present import Rows, Shown
from stella_assets.core.step import Artefact, BuildContext, CheckSpec, Presentation, Result, Step, from_folder
from stella_assets.evaluation.held_out import held_out_types
from stella_assets.evaluation.model_scores import ModelScores
from stella_assets.evaluation.report import Report
from stella_assets.evaluation.scoreboard import Scoreboard
from stella_assets.evaluation.scores import CONCATENATION
from stella_assets.evaluation.settings import HELD_OUT, EvaluationSettings
from stella_assets.evaluation.summary import ALL_TASKS
from stella_assets.evaluation.tasks import EvaluationTask
from stella_assets.release.causes import explain_loss
from stella_assets.release.settings import Gate
from stella_assets.release.tables import VERDICTS
from stella_assets.release.verdicts import (
    BASE_REGRESSION,
    TERMS,
    Verdict,
    judge,
    judge_contamination,
    judge_terms,
    read_verdicts,
)
from stella_assets.teachers.terms import Terms

CODE_VERSION = "3"
CHECKS = {
    TERMS: "The terms of every teacher allow to publish what learned from it, or the release is internal.",
    "retention": "The student keeps enough of the teachers' scores, by task type.",
    BASE_REGRESSION: "The student lost no more compared with its base model than is allowed.",
    "gain": "The student gained enough over the base model.",
    "gain_over_release": "The student is better than the active release, or as good as asked.",
    "max_task_regression": "No task lost more compared with the active release than is allowed.",
    "dimensions": "Matryoshka dimensions keep enough of the largest one's score.",
    "contamination": "The corpus contains no more of the evaluated tasks' texts than is allowed.",
}


class GateError(UserError):
    """A gate that asks for what the recipe does not have."""


def gate_step(
    recipe: str,
    *,
    gate: Gate,
    report: Step[Report],
    scores: Sequence[Step[ModelScores]],
    active_scores: Step[ModelScores],
    student_model: str,
    distribution: str = "public",
    terms: Mapping[str, Terms] | None = None,
) -> Step[list[Verdict]]:
    """The step that makes `release_gate`.

    Args:
        recipe: Name of the recipe.
        gate: What a release must show.
        report: The evaluation, for what was found of its texts in the corpus.
        scores: The scores of all models of the recipe.
        active_scores: The scores of the active release.
        student_model: The model that may be released, among the scored ones.
        distribution: Whom the release is for.
        terms: Of the teachers that state some, by name.

    Returns:
        A step whose artefact reads as the verdicts.
    """
    return Step(
        recipe=recipe,
        name="release_gate",
        code_version=CODE_VERSION,
        # Left out where no teacher states any, so that such recipes keep their verdicts.
        settings=gate.settings()
        | ({"distribution": distribution, "terms": {n: t.settings() for n, t in terms.items()}} if terms else {}),
        # The report has summaries only; the intervals need the samples that are stored with the scores.
        dependencies=(report, *scores, active_scores),
        build=lambda context: _judge(
            gate, report, [*scores, active_scores], student_model, list(judge_terms(distribution, terms or {})), context
        ),
        read=from_folder(read_verdicts),
        presentation=Presentation(
            group="release",
            kinds=frozenset({"parquet"}),
            description="What a release must show, compared with resampled scores. A failing check stops the release.",
            # Blocking: the run ends here and the release is not made.
            checks=tuple(CheckSpec(name, what, blocking=True) for name, what in CHECKS.items()),
            show=_show,
        ),
    )


def check_gate(
    gate: Gate,
    *,
    evaluation: EvaluationSettings,
    tasks: Iterable[EvaluationTask],
    teachers: Sequence[str],
    scored: Collection[str],
    dims: Sequence[int],
    decontaminates: bool,
) -> None:
    """Make sure that the gate asks for what the recipe has.

    Args:
        gate: What a release must show.
        evaluation: Which tasks are built from the corpus.
        tasks: The other tasks.
        teachers: Names of the teachers.
        scored: Those of them, and of the concatenation, that are scored.
        dims: The student's Matryoshka dimensions.
        decontaminates: Whether the corpus is compared with evaluation texts.

    Raises:
        GateError: A threshold for a type that no task has, or for a teacher or a dimension that does not exist.
    """
    types = {task.type for task in tasks}
    # Held-out tasks do not exist before the corpus, so their types are taken from the settings.
    if HELD_OUT in evaluation.tasks:
        types |= held_out_types(evaluation.held_out)
    for kind in gate.retention:
        if kind not in types | {ALL_TASKS}:
            raise GateError(
                f"release.gate.retention {kind!r}: no task is of this type.",
                f"There are {', '.join(sorted(types))}, and `{ALL_TASKS}` for all tasks.",
            )
    names = [CONCATENATION, *teachers]
    if gate.retention_of not in names:
        raise GateError(
            f"release.gate.retention_of {gate.retention_of!r}: no teacher has this name.",
            f"There is {', '.join(names)}.",
        )
    if gate.retention and gate.retention_of not in scored:
        raise GateError(
            f"release.gate.retention: {gate.retention_of} is not scored, as its texts would be paid.",
            "Set `evaluate: true` for its teachers of kind `api`, or remove it from the gate.",
        )
    for dim in gate.dimensions:
        if dim not in dims:
            raise GateError(
                f"release.gate.dimensions {dim}: student.matryoshka_dims has no such dimension.",
                f"It has {', '.join(map(str, dims)) or 'none'}.",
            )
    if gate.contamination is not None and not decontaminates:
        raise GateError(
            "release.gate.contamination: the corpus is not compared with any texts.", "Add `corpus.decontaminate`."
        )


def check_terms(distribution: str, terms: Mapping[str, Terms]) -> None:
    """Make sure that what is made may go to those whom it is for, before anything is paid.

    Args:
        distribution: The recipe's.
        terms: Of the teachers that state some, by name.

    Raises:
        GateError: A teacher's terms do not allow it.
    """
    for verdict in judge_terms(distribution, terms):
        if not verdict.passed:
            raise GateError(
                f"teacher {verdict.subject!r}: a model that learned from it may not be published, and "
                f"release.distribution is {distribution}. {verdict.note}.",
                "Set `release.distribution: internal`, or do not learn from this teacher.",
            )


def _show(artefact: Artefact) -> Mapping[str, Shown]:
    return {"verdicts": Rows(pq.read_table(artefact.folder / VERDICTS.file).to_pylist())}


def _judge(
    gate: Gate,
    report: Step[Report],
    scores: Sequence[Step[ModelScores]],
    student_model: str,
    of_terms: list[Verdict],
    context: BuildContext,
) -> Result:
    board = Scoreboard.of(context.read(step) for step in scores)
    # By default a small corpus gets only the held-out tasks that it has texts for.
    for kind in gate.retention:
        if kind not in board.groups:
            raise GateError(
                f"release.gate.retention {kind!r}: the corpus has too few texts for a held-out task of this type.",
                "Add texts, raise `corpus.test`, or remove it from the gate.",
            )
    summary = context.read(report).summary
    verdicts = of_terms + [
        # Why it fell is asked where it did: what a person does next depends on it.
        replace(verdict, note=explain_loss(board, summary, student_model))
        if verdict.requirement == BASE_REGRESSION and not verdict.passed
        else verdict
        for verdict in judge(gate, board, student_model)
    ]
    verdicts += judge_contamination(gate.contamination, summary.contamination)
    VERDICTS.write(context.folder, [asdict(verdict) for verdict in verdicts])
    for verdict in verdicts:
        context.log.info(f"gate {'open' if verdict.passed else 'CLOSED'}: {verdict}")
    return Result(
        metrics={"requirements": len(verdicts), "failed": sum(not verdict.passed for verdict in verdicts)},
        # One check per requirement, asked for or not: the UI declares them before the run.
        checks=tuple(_check(name, [v for v in verdicts if v.requirement == name]) for name in CHECKS),
    )


def _check(name: str, verdicts: list[Verdict]) -> Check:
    failed = [verdict for verdict in verdicts if not verdict.passed]
    said = "; ".join(map(str, failed or verdicts)) or "not asked for, or nothing to compare with"
    return Check(name, not failed, said, {verdict.subject: verdict.found for verdict in verdicts})
