"""Verdicts: each requirement of the gate compared with the scores.

Scores are known up to the samples that they were measured on, so each requirement is compared with the interval that
paired resampling gives. Where something must not be lost (retention, a task's score, a Matryoshka dimension), the gate
closes when the whole interval is beyond the limit: noise does not close it. Where something must be gained, it opens
when the whole interval is above the limit: noise does not open it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from stella_assets.evaluation.scoreboard import Scoreboard
from stella_assets.evaluation.scores import BASE_MODEL, CONCATENATION, teacher_model
from stella_assets.evaluation.summary import ALL_TASKS, ContaminationSummary, Difference, Figure
from stella_assets.release.active import ACTIVE
from stella_assets.release.settings import Gate
from stella_assets.release.tables import VERDICTS
from stella_assets.teachers.terms import Terms

BASE_REGRESSION = "max_base_regression"
TERMS = "terms"


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
        note: What else people should know of a failed one.
    """

    requirement: str
    subject: str
    limit: float
    found: float
    low: float
    high: float
    passed: bool
    sure: bool
    note: str = ""

    def __str__(self) -> str:
        size = f"{self.found:.4g} (95%: {self.low:.4g} to {self.high:.4g})"
        by = "" if self.passed else f", short by {abs(self.found - self.limit):.3g}"
        noise = "" if self.sure else "; within the noise"
        note = f". {self.note}" if self.note else ""
        return f"{self.requirement}, {self.subject}: {size}, limit {self.limit:g}{by}{noise}{note}"


def judge(gate: Gate, board: Scoreboard, student_model: str) -> Iterator[Verdict]:
    """Compare the scores of a student with what the gate asks.

    Args:
        gate: What a release must show.
        board: Scores of all models, the active release among them if there is one.
        student_model: The model that may be released.

    Yields:
        One verdict per requirement and subject, in the order of the settings.
    """
    student, groups = board.full(student_model), board.groups
    everything = groups[ALL_TASKS]
    reference = gate.retention_of if gate.retention_of == CONCATENATION else teacher_model(gate.retention_of)
    for kind, limit in gate.retention.items():
        share = board.ratio(student, board.full(reference), groups[kind])
        yield from _keeps_share("retention", kind, limit, share)
    # A loss is a negative change, so limits of losses are negated; -0.0 would be shown as such.
    if gate.max_base_regression is not None:
        change = board.difference(student, board.full(BASE_MODEL), everything)
        yield _keeps(BASE_REGRESSION, "mean", 0 - gate.max_base_regression, change)
    if gate.gain is not None:
        gain = board.difference(student, board.full(BASE_MODEL), everything)
        yield gains("gain", "mean", gate.gain, gain)
    for dim, limit in gate.dimensions.items():
        share = board.ratio((student_model, dim), student, everything)
        yield from _keeps_share("dimensions", str(dim), limit, share)
    if board.has(ACTIVE):
        yield from _judge_against_active(gate, board, student_model)


def _judge_against_active(gate: Gate, board: Scoreboard, student_model: str) -> Iterator[Verdict]:
    student, active, everything = board.full(student_model), board.full(ACTIVE), board.groups[ALL_TASKS]
    if board.points[active] == board.points[student]:  # the same model, promoted before
        return
    if gate.gain_over_release is not None:
        gain = board.difference(student, active, everything)
        yield gains("gain_over_release", "mean", gate.gain_over_release, gain)
    if gate.max_task_regression is not None:
        for task in everything:
            change = board.difference(student, active, [task])
            # Each task is judged alone: the mean may hide a loss.
            yield _keeps("max_task_regression", task, 0 - gate.max_task_regression, change)


def judge_contamination(limit: int | None, found: Iterable[ContaminationSummary]) -> Iterator[Verdict]:
    """Texts that are still in the corpus though they resemble an evaluated task's: reported, not removed.

    Args:
        limit: How many may be there; None for any number.
        found: What was found of each task.

    Yields:
        One verdict per task.
    """
    if limit is None:
        return
    for row in found:
        # Counted and not sampled, so the interval is a point.
        left = row.reported
        yield Verdict("contamination", row.task, limit, left, left, left, left <= limit, True)


def judge_terms(distribution: str, terms: Mapping[str, Terms]) -> Iterator[Verdict]:
    """What the providers of teachers allow, compared with whom the release is for.

    Args:
        distribution: The recipe's.
        terms: By teacher, of those that state any.

    Yields:
        One verdict per teacher.
    """
    for teacher, stated in terms.items():
        allowed = distribution == "internal" or stated.distribution == "allowed"
        forbidden = 1.0 - allowed
        # Read and not measured, so the interval is a point.
        yield Verdict(TERMS, teacher, 0, forbidden, forbidden, forbidden, allowed, True, f"Its terms: {stated}")


def _keeps_share(requirement: str, subject: str, limit: float, share: Figure) -> Iterator[Verdict]:
    """The verdict on a share; none where the reference may be worth nothing, as there is nothing to keep."""
    if share.value is not None and share.interval is not None:
        kept = Difference(value=share.value, interval=share.interval)
        yield _keeps(requirement, subject, limit, kept)


def _keeps(requirement: str, subject: str, limit: float, figure: Difference) -> Verdict:
    """Fails when the whole interval is below the limit."""
    low, high = figure.interval
    return Verdict(requirement, subject, limit, figure.value, low, high, high >= limit, low >= limit or high < limit)


def gains(requirement: str, subject: str, limit: float, figure: Difference) -> Verdict:
    """The verdict on a gain, which passes when the whole interval is above the limit.

    Args:
        requirement: Its key in the recipe.
        subject: What it was asked of.
        limit: What the recipe asks, in points.
        figure: What was measured.
    """
    low, high = figure.interval
    return Verdict(requirement, subject, limit, figure.value, low, high, low >= limit, low >= limit or high < limit)


def read_verdicts(folder: Path) -> list[Verdict]:
    """The verdicts that a gate's artefact holds."""
    return [Verdict(**row) for row in pq.read_table(folder / VERDICTS.file).to_pylist()]


def failed_verdicts(verdicts: Iterable[Verdict]) -> list[str]:
    """What closed a gate, in words."""
    return [str(verdict) for verdict in verdicts if not verdict.passed]
