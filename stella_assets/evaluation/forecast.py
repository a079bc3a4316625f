"""How many texts an evaluation encodes, and what a teacher that costs money would charge for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stella_assets.core.manifest import Manifest
from stella_assets.core.step import Estimate, Size
from stella_assets.evaluation.settings import HELD_OUT, EvaluationSettings
from stella_assets.teachers.forecast import with_cost

if TYPE_CHECKING:
    from stella_assets.teachers.kinds.base import TeacherConfig

HELD_OUT_TEXTS = 2.5
"""Texts that the held-out tasks encode per test document: documents, their first sentences and the rest."""


def texts_to_score(evaluation: EvaluationSettings, test_texts: int) -> int:
    """Texts of the held-out tasks, and of mteb's tasks as far as mteb knows their sizes.

    Args:
        evaluation: The settings.
        test_texts: Of the corpus; held-out tasks are made from them.
    """
    from stella_assets.evaluation.task_set import list_tasks

    held_out = HELD_OUT_TEXTS * min(test_texts, evaluation.held_out.max_documents)
    known = 0
    for task in list_tasks(evaluation, None):
        for part in task.scored_parts():
            statistics = part.task.metadata.descriptive_stats or {}
            known += sum(int(each.get("num_samples", 0)) for each in statistics.values())
    return round(held_out if HELD_OUT in evaluation.tasks else 0) + known


def estimate_teacher_scores(
    teacher: TeacherConfig,
    evaluation: EvaluationSettings,
    last: Manifest | None,
    size: Size | None,
) -> Estimate:
    """What a teacher behind an API charges for the texts of the tasks; the concatenation then finds their vectors.

    Args:
        teacher: Its settings.
        evaluation: The settings.
        last: The last scores of the teacher; they know the time.
        size: Of the corpus, whose texts tell how long those of the tasks may be; None where it is not known.
    """
    if size is None:
        return Estimate("texts of tasks", money=None, charges="unknown, as the corpus is not made yet")
    count = texts_to_score(evaluation, size.test)
    forecast = teacher.forecast_of(count, size.mean_bytes)
    assert forecast is not None, "it is paid"
    own = [task.name for task in evaluation.custom_tasks]
    work = f"{count:,} texts of tasks, if as long as those of the corpus"
    work = f"{work}; {', '.join(own)} not counted" if own else work
    return with_cost(Estimate(work, float(last.run_info["seconds"]) if last else None, texts=count), forecast)
