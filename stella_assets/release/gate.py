"""The gate: what a release must show before it is made, each requirement with the evidence for it.

Scores are known up to the samples that they were measured on, so each requirement is held against the interval that
paired resampling gives. Where something must not be lost (retention, a task's score, a short dimension), the gate
closes when the whole interval is beyond the limit: noise does not close it. Where something must be gained, it opens
when the whole interval is above the limit: noise does not open it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from stella_assets.core.manifest import Check
from stella_assets.core.step import BuildContext, Result, Step
from stella_assets.evaluation.held_out import NAMES as HELD_OUT_NAMES
from stella_assets.evaluation.report import read_summary, report_step, scoreboard
from stella_assets.evaluation.score import model_names, score_steps
from stella_assets.evaluation.summary import ALL_TASKS, Scoreboard
from stella_assets.evaluation.tasks import METRICS, EvaluationTask
from stella_assets.recipe import HELD_OUT, Gate, Recipe, RecipeError
from stella_assets.release.released import RELEASED, released_step
from storage.statistics import VERDICTS, write_table

CODE_VERSION = "1"
VERDICTS_FILE = "verdicts.parquet"
CHECKS = {
    "retention": "The student keeps enough of the teachers' scores, by task type.",
    "gain": "The student gained enough over the untouched student.",
    "gain_over_release": "The student is better than what is released now, or as good as asked.",
    "max_task_regression": "No task lost more against what is released now than is allowed.",
    "dimensions": "Short dimensions keep enough of the largest one's score.",
    "contamination": "The corpus holds no more of the evaluated tasks' texts than is allowed.",
}


@dataclass(frozen=True)
class Verdict:
    """One requirement, and what was found.

    Attributes:
        requirement: Its key in the recipe.
        subject: What it was asked of: a task type, a task, a dimension.
        limit: What the recipe asks.
        found: What was measured, in the limit's unit.
        low: Lower end of the 95% interval of `found`.
        high: Upper end.
        passed: Whether the gate stays open.
        sure: Whether the interval lies on one side of the limit.
    """

    requirement: str
    subject: str
    limit: float
    found: float
    low: float
    high: float
    passed: bool
    sure: bool

    def __str__(self) -> str:
        size = f"{self.found:.4g} (95%: {self.low:.4g} to {self.high:.4g})"
        by = "" if self.passed else f", short by {abs(self.found - self.limit):.3g}"
        noise = "" if self.sure else "; within the noise"
        return f"{self.requirement}, {self.subject}: {size}, limit {self.limit:g}{by}{noise}"


def gate_step(recipe: Recipe) -> Step:
    """The step that makes `release_gate`."""
    return Step(
        recipe=recipe.name,
        name="release_gate",
        code_version=CODE_VERSION,
        settings=recipe.release.gate.settings(),
        needs=(report_step(recipe), *score_steps(recipe), released_step(recipe)),
        build=lambda context: _judge(recipe, context),
    )


def check_gate(recipe: Recipe, tasks: Iterable[EvaluationTask]) -> None:
    """Make sure that the gate asks for what is there.

    Raises:
        RecipeError: A threshold for a type that no task has, a teacher or a dimension that is none.
    """
    gate, where = recipe.release.gate, f"recipe {recipe.name!r}: release.gate"
    types = {task.type for task in tasks}
    if HELD_OUT in recipe.evaluation.tasks:
        types |= {METRICS[kind][0] for kind in HELD_OUT_NAMES}
    for kind in gate.retention:
        if kind not in types | {ALL_TASKS}:
            raise RecipeError(
                f"{where}.retention {kind!r}: no task is of this type. There are {', '.join(sorted(types))}, and "
                f"`{ALL_TASKS}` for all tasks."
            )
    names = ["concatenation", *(teacher.name for teacher in recipe.teachers)]
    if gate.retention_of not in names:
        raise RecipeError(f"{where}.retention_of {gate.retention_of!r}: there is {', '.join(names)}.")
    for dim in gate.dimensions:
        if dim not in recipe.student.matryoshka_dims:
            raise RecipeError(f"{where}.dimensions {dim}: student.matryoshka_dims has no such dimension.")
    if gate.contamination is not None and recipe.corpus.decontaminate is None:
        raise RecipeError(f"{where}.contamination: the corpus is held against no texts. Add `corpus.decontaminate`.")


def _judge(recipe: Recipe, context: BuildContext) -> Result:
    gate = recipe.release.gate
    board = scoreboard(recipe, context.inputs, [released_step(recipe)])
    contamination = read_summary(context.inputs["evaluation_report"])["contamination"]
    verdicts = [*judge(gate, board, model_names(recipe)[-1]), *judge_contamination(gate, contamination)]
    write_table(context.folder / VERDICTS_FILE, VERDICTS, [asdict(verdict) for verdict in verdicts])
    for verdict in verdicts:
        context.log.info(f"gate {'open' if verdict.passed else 'CLOSED'}: {verdict}")
    return Result(
        metrics={"requirements": len(verdicts), "failed": sum(not verdict.passed for verdict in verdicts)},
        checks=tuple(_check(name, [v for v in verdicts if v.requirement == name]) for name in CHECKS),
    )


def _check(name: str, verdicts: list[Verdict]) -> Check:
    failed = [verdict for verdict in verdicts if not verdict.passed]
    said = "; ".join(map(str, failed or verdicts)) or "not asked for, or nothing to compare with"
    return Check(name, not failed, said, {verdict.subject: verdict.found for verdict in verdicts})


def judge(gate: Gate, board: Scoreboard, student_name: str) -> Iterator[Verdict]:
    """Hold the scores of a student against what the gate asks."""
    student, groups = board.full(student_name), board.groups
    everything = groups[ALL_TASKS]
    reference = gate.retention_of if gate.retention_of == "concatenation" else f"teacher/{gate.retention_of}"
    for kind, limit in gate.retention.items():
        share = board.ratio(student, board.full(reference), groups[kind])
        yield from _keeps_share("retention", kind, limit, share)
    if gate.gain is not None:
        gain = board.difference(student, board.full("base_model"), everything)
        yield _gains("gain", "mean", gate.gain, gain)
    for dim, limit in gate.dimensions.items():
        share = board.ratio((student_name, dim), student, everything)
        yield from _keeps_share("dimensions", str(dim), limit, share)
    if any(name == RELEASED for name, _ in board.points):
        released = board.full(RELEASED)
        if board.points[released] != board.points[student]:  # the same model, promoted before
            if gate.gain_over_release is not None:
                gain = board.difference(student, released, everything)
                yield _gains("gain_over_release", "mean", gate.gain_over_release, gain)
            if gate.max_task_regression is not None:
                for task in everything:
                    yield _keeps(
                        "max_task_regression",
                        task,
                        -gate.max_task_regression,
                        board.difference(student, released, [task]),
                    )


def judge_contamination(gate: Gate, found: Iterable[dict[str, Any]]) -> Iterator[Verdict]:
    """Texts that are still in the corpus though they resemble an evaluated task's: reported, not taken out."""
    if gate.contamination is None:
        return
    for row in found:
        left = row["reported"]
        yield Verdict(
            "contamination", row["task"], gate.contamination, left, left, left, left <= gate.contamination, True
        )


def _keeps_share(requirement: str, subject: str, limit: float, share: dict[str, Any]) -> Iterator[Verdict]:
    """The verdict on a share; none where the reference may be worth nothing, as there is nothing to keep."""
    if share["value"] is not None:
        yield _keeps(requirement, subject, limit, share)


def _keeps(requirement: str, subject: str, limit: float, figure: dict[str, Any]) -> Verdict:
    value, (low, high) = figure["value"], figure["interval"]
    return Verdict(requirement, subject, limit, value, low, high, high >= limit, low >= limit or high < limit)


def _gains(requirement: str, subject: str, limit: float, figure: dict[str, Any]) -> Verdict:
    value, (low, high) = figure["value"], figure["interval"]
    return Verdict(requirement, subject, limit, value, low, high, low >= limit, low >= limit or high < limit)


def failed_verdicts(folder: Any) -> list[str]:
    """What closed a gate, in words."""
    rows = pl.read_parquet(folder / VERDICTS_FILE).filter(~pl.col("passed")).to_dicts()
    return [str(Verdict(**row)) for row in rows]
