"""What a release is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stella_assets.core.step import Step
from stella_assets.corpus.read import CorpusTexts
from stella_assets.corpus.settings import Decontaminate
from stella_assets.corpus.sources.base import SourceConfig
from stella_assets.evaluation.report import Report
from stella_assets.evaluation.task_set import TaskSet
from stella_assets.release.settings import ReleaseSettings
from stella_assets.students import DenseConfig, SavedStudent
from stella_assets.teachers.kinds.base import TeacherConfig
from stella_assets.teachers.snapshot import Snapshot
from stella_assets.teachers.teacher_vectors import TeacherVectors


@dataclass(frozen=True)
class ReleaseInputs:
    """What a release is made of.

    Attributes:
        description: The recipe's, for the model card.
        recipe_digest: Of what the recipe says, for the model card.
        settings: What is published.
        student: The student's settings.
        prompts: The student's for tasks, by mteb's keys.
        teachers: The teachers' settings, for their licences.
        sources: The corpus' sources, for the data sets that the student has seen.
        decontaminate: Which evaluation texts the corpus was compared with; None for none.
        corpus: The texts.
        vectors: Each teacher's vectors, by name.
        concatenation: What the student learned from.
        tasks: What the student was evaluated on.
        stages: All stages; the last one's student is released.
        report: The evaluation.
        gate: What has to pass before.
    """

    description: str
    recipe_digest: str
    settings: ReleaseSettings
    student: DenseConfig
    prompts: Mapping[str, str]
    teachers: Sequence[TeacherConfig]
    sources: Sequence[SourceConfig]
    decontaminate: Decontaminate | None
    corpus: Step[CorpusTexts]
    vectors: Mapping[str, Step[TeacherVectors]]
    concatenation: Step[Snapshot]
    tasks: Step[TaskSet]
    stages: Sequence[Step[SavedStudent]]
    report: Step[Report]
    gate: Step[Any]
