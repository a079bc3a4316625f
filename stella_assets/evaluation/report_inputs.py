"""The steps that a report reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stella_assets.core.step import Step

if TYPE_CHECKING:
    from stella_assets.corpus.contamination import Contamination
    from stella_assets.corpus.read import CorpusTexts
    from stella_assets.evaluation.model_scores import ModelScores
    from stella_assets.evaluation.ranking.steps import RankingScores
    from stella_assets.evaluation.task_set import TaskSet
    from stella_assets.evaluation.variants import VariantScores
    from stella_assets.students.dense.settings import SavedStudent
    from stella_assets.teachers.snapshot import Snapshot
    from stella_assets.teachers.teacher_vectors import TeacherVectors


@dataclass(frozen=True)
class ReportInputs:
    """The steps that a report reads.

    Attributes:
        corpus: The texts.
        contamination: None where the corpus is not compared with evaluation texts.
        teachers: Vectors by teacher.
        concatenation: The snapshot of all teachers' vectors.
        vector_stats: Statistics of the vectors.
        suspects: None where they are not searched for.
        stages: In their order.
        tasks: What the models are scored on.
        scores: By model, in the order in which they are shown; the last is the student.
        variants: None where the recipe asks for none.
        seeds: Scores of the last stage by seed.
        rankings: How the dense models rank, and then each retriever; empty for a recipe without retrievers.
    """

    corpus: Step[CorpusTexts]
    contamination: Step[Contamination] | None
    teachers: Mapping[str, Step[TeacherVectors]]
    concatenation: Step[Snapshot]
    vector_stats: Step[Any]
    suspects: Step[Any] | None
    stages: Sequence[Step[SavedStudent]]
    tasks: Step[TaskSet]
    scores: Mapping[str, Step[ModelScores]]
    variants: Step[VariantScores] | None
    seeds: Mapping[int, Step[ModelScores]]
    rankings: Sequence[Step[RankingScores]] = ()

    def steps(self) -> Iterator[Step[Any]]:
        """All of them, in the order of the data."""
        steps = (
            self.corpus,
            self.contamination,
            *self.teachers.values(),
            self.concatenation,
            self.vector_stats,
            self.suspects,
            *self.stages,
            self.tasks,
            *self.scores.values(),
            self.variants,
            *self.seeds.values(),
            *self.rankings,
        )
        # None stands for what the recipe does not ask for.
        return (step for step in steps if step is not None)
