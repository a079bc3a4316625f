"""Why a student is below its base model: what fell, and the most likely causes by the figures of the run itself."""

from __future__ import annotations

from stella_assets.evaluation.bootstrap import Model
from stella_assets.evaluation.scoreboard import Scoreboard
from stella_assets.evaluation.scores import BASE_MODEL, CONCATENATION
from stella_assets.evaluation.summary import ALL_TASKS, Summary

MOST_CAUSES = 3


def explain_loss(board: Scoreboard, summary: Summary, student: str) -> str:
    """Which types of task fell, by how much, and the most likely causes, the one that cost most points first.

    Args:
        board: Scores of all models.
        summary: Of the report, with the sizes of the models.
        student: Name of the model that is below its base model.

    Returns:
        Sentences without the last full stop, and the setting that allows the loss.
    """
    base, last = board.full(BASE_MODEL), board.full(student)
    change = {kind: _points(board, last, kind) - _points(board, base, kind) for kind in board.groups}
    fell = sorted((kind for kind in change if kind != ALL_TASKS and change[kind] < 0), key=lambda kind: change[kind])
    types = ", ".join(f"{kind} by {-change[kind]:.2f} points" for kind in fell)
    causes = [*_causes_in_points(board, student), *_smaller(summary, student), *_other_types(change)]
    numbered = "; ".join(f"({number}) {cause}" for number, cause in enumerate(causes[:MOST_CAUSES], 1))
    return (
        f"Compared with the base model as its authors ship it, {types} fell. Most likely causes: {numbered}. "
        "To release it nevertheless, set release.gate.max_base_regression"
    )


def _causes_in_points(board: Scoreboard, student: str) -> list[str]:
    """The way from the base model's score to the student's: by the teachers, by the stages."""
    # Teachers that cost money are scored only where the recipe asks for it.
    teachers = _points(board, board.full(CONCATENATION)) if board.has(CONCATENATION) else None
    base, last = _points(board, board.full(BASE_MODEL)), _points(board, board.full(student))
    stages = {name: _points(board, board.full(name)) for name, _ in board.models if name.startswith("stage_")}
    best = max(stages, key=lambda name: stages[name])
    found = [
        (
            stages[best] - last,
            f"the last stage lost {stages[best] - last:.2f} points that {best} had: lower its learning rate",
        ),
    ]
    if teachers is not None:
        found += [
            (
                base - teachers,
                f"the teachers themselves score {teachers:.2f}, {base - teachers:.2f} below the base model: take "
                "better ones",
            ),
            (
                teachers - stages[best],
                f"the student learnt too little of its teachers: they score {teachers:.2f}, it scores "
                f"{stages[best]:.2f} at best: train longer, on more texts or on texts nearer to the tasks",
            ),
        ]
    # Only what lowered the score is a cause, and what lowered it most is the likeliest.
    return [cause for points, cause in sorted(found, key=lambda each: -each[0]) if points > 0]


def _smaller(summary: Summary, student: str) -> list[str]:
    full = summary.at_full_dimension()
    own, base = full[student].parameters, full[BASE_MODEL].parameters
    if not own or not base or own >= base:
        return []
    return [
        f"the student has {own / 1e6:.1f} of the base model's {base / 1e6:.1f} million parameters: keep more layers"
    ]


def _other_types(change: dict[str, float]) -> list[str]:
    """Types that rose although the mean fell: texts or losses favour them."""
    rose = [f"{kind} by {points:.2f}" for kind, points in change.items() if kind != ALL_TASKS and points > 0]
    if not rose:
        return []
    return [f"the training favours other types, which rose ({', '.join(rose)}): add texts like those of the rest"]


def _points(board: Scoreboard, model: Model, kind: str = ALL_TASKS) -> float:
    return 100 * board.mean(model, board.groups[kind])
