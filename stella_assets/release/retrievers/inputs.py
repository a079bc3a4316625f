"""What the release of a retriever is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stella_assets.core.step import Step
from stella_assets.corpus.read import CorpusTexts
from stella_assets.corpus.sources.base import SourceConfig
from stella_assets.evaluation.ranking.steps import RankingScores
from stella_assets.evaluation.task_set import TaskSet
from stella_assets.release.settings import ReleaseSettings
from stella_assets.students.retriever import SavedRetriever
from stella_assets.teachers.kinds.base import TeacherConfig
from stella_assets.teachers.terms import Terms
from stella_assets.training.retrievers.base import RetrieverConfig


@dataclass(frozen=True)
class RetrieverReleaseInputs:
    """What the release of a retriever is made of.

    Attributes:
        description: The recipe's, for the card.
        recipe_digest: Of what the recipe says, for the card.
        release: The recipe's settings of releases: licence, and whom they are for.
        settings: Of the retriever.
        teachers: The teachers' settings, for their licences.
        terms: What the providers of teachers and of scorers allow, by name, of those that state any.
        sources: The corpus' sources, for the data sets that it has seen.
        corpus: The texts.
        tasks: What it was evaluated on.
        retriever: That is released.
        dense: How the dense student ranks, with which it is compared.
        scores: How it ranks.
    """

    description: str
    recipe_digest: str
    release: ReleaseSettings
    settings: RetrieverConfig
    teachers: Sequence[TeacherConfig]
    terms: Mapping[str, Terms]
    sources: Sequence[SourceConfig]
    corpus: Step[CorpusTexts]
    tasks: Step[TaskSet]
    retriever: Step[SavedRetriever]
    dense: Step[RankingScores]
    scores: Step[RankingScores]
