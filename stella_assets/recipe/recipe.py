"""The whole recipe. Its unions of kinds are built from the registries of the rooms below."""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from stella_assets.core.config import ConfigModel, ModelSource, Name, Seed, doubled
from stella_assets.corpus.settings import CorpusSettings
from stella_assets.evaluation.ranking.steps import DENSE
from stella_assets.evaluation.settings import HELD_OUT, EvaluationSettings
from stella_assets.recipe.presets import expand_preset
from stella_assets.recipe.redistil import Redistil
from stella_assets.release.settings import ReleaseSettings
from stella_assets.storage.canonical import digest
from stella_assets.students import STUDENTS
from stella_assets.teachers.kinds import TEACHERS
from stella_assets.teachers.mined_negatives import MineNegatives
from stella_assets.teachers.scorers import PAIR_SCORERS
from stella_assets.teachers.terms import Terms
from stella_assets.training.retrievers import RETRIEVERS
from stella_assets.training.stages import STAGES

# Links to a recipe's artefacts are in `<workspace>/<name>/`, next to these folders.
RESERVED_NAMES = frozenset(
    {
        "artefacts",
        "environments",
        "lancedb",
        "locks",
        "releases",
        "runs",
        "shards",
        "history",
        "schedules",
        "storage",
        "logs",
        "reproductions",
        "redistillations",
        "starts",
    }
)
"""Folders of the workspace that are not a recipe's."""

# The two forms that Dagster accepts as owners of an asset.
OWNER = re.compile(r"team:[\w.-]+|[\w.+-]+@[\w-]+(\.[\w-]+)+")


class Recipe(ConfigModel):
    """Everything that decides what is distilled."""

    name: Name = Field(description="lower case letters, digits and `_`; the prefix of its assets")
    description: str = Field(description="one line, shown in the UI, the report and the model card")
    owners: tuple[str, ...] = Field(
        default=(), description="who is responsible, shown in the UI: mail addresses, or `team:NAME`"
    )
    seed: Seed = Field(
        default=0, description="of the heads and of the order of batches; corpus and teachers do not depend on it"
    )
    corpus: CorpusSettings = Field(description="where texts come from, which are kept, and how they are split")
    teachers: tuple[TEACHERS.union(), ...] = Field(  # type: ignore[valid-type]
        min_length=1, description="a list; the concatenation keeps its order"
    )
    # Left out where it is not given: a recipe without it has the digest that it had before.
    mined_negatives: MineNegatives | None = Field(
        default=None,
        exclude_if=lambda mine: mine is None,
        description="negatives for the pairs of the corpus, from a teacher's stored vectors",
    )
    pair_scores: tuple[PAIR_SCORERS.union(), ...] = Field(  # type: ignore[valid-type]
        default=(),
        exclude_if=lambda scorers: not scorers,
        description="what scores the queries of the corpus with their candidates; `retrievers` learn from it",
    )
    student: STUDENTS.union() = Field(description="the model to train")  # type: ignore[valid-type]
    stages: tuple[STAGES.union(), ...] = Field(  # type: ignore[valid-type]
        min_length=1,
        validate_default=True,
        default="robust",
        description="a list of stages, each continuing from the one before, or a preset",
    )
    # Left out where there are none: a recipe without them has the digest that it had before.
    retrievers: tuple[RETRIEVERS.union(), ...] = Field(  # type: ignore[valid-type]
        default=(),
        exclude_if=lambda retrievers: not retrievers,
        description="further students for retrieval, which learn from the pairs of the corpus",
    )
    evaluation: EvaluationSettings = Field(default=EvaluationSettings(), description="what every model is scored on")
    release: ReleaseSettings = Field(description="the published model folder, and what it must show first")
    redistil: Redistil | None = Field(
        default=None, description="`true` or settings: the recipe is re-run automatically"
    )

    @field_validator("owners")
    @classmethod
    def _require_reachable(cls, owners: tuple[str, ...]) -> tuple[str, ...]:
        for owner in owners:
            if not OWNER.fullmatch(owner):
                raise ValueError(f"{owner!r} is neither a mail address nor `team:NAME`")
        return owners

    @field_validator("student", mode="before")
    @classmethod
    def _default_student(cls, raw: Any) -> Any:
        # A discriminated union needs the tag before validation; a field default would come too late.
        return {"kind": "dense", **raw} if isinstance(raw, dict) else raw

    @field_validator("stages", mode="before")
    @classmethod
    def _expand(cls, raw: Any, info: ValidationInfo) -> Any:
        # Teachers are validated first; where they are wrong, there are none here, and their own error is told.
        stages = expand_preset(raw, [teacher.name for teacher in info.data.get("teachers", ())])
        if not isinstance(stages, list | tuple):
            return stages
        return [{"method": "descent", **stage} if isinstance(stage, dict) else stage for stage in stages]

    @field_validator("redistil", mode="before")
    @classmethod
    def _switch(cls, redistil: Any) -> Any:
        return {} if redistil is True else None if redistil is False else redistil

    @model_validator(mode="after")
    def _require_consistent(self) -> Self:
        if self.name in RESERVED_NAMES:
            raise ValueError(f"name {self.name!r} is a folder of STELLA_HOME; choose another")
        names = [teacher.name for teacher in self.teachers]
        if twice := doubled(names):
            raise ValueError(f"two teachers are named {twice[0]!r}; each needs a name of its own")
        if self.corpus.semantic and self.corpus.semantic.teacher not in names:
            raise ValueError(
                f"corpus.semantic.teacher names {self.corpus.semantic.teacher!r}; the recipe has {', '.join(names)}"
            )
        seeds = [self.seed, *self.evaluation.seeds]
        if doubled_seeds := [seed for seed in dict.fromkeys(seeds) if seeds.count(seed) > 1]:
            raise ValueError(
                f"evaluation.seeds: {doubled_seeds[0]} is given twice or is the recipe's own seed; name others"
            )
        for key, prompt in self.evaluation.prompts.items():
            if prompt not in self.student.prompts and "{instruction}" not in prompt:
                raise ValueError(
                    f"evaluation.prompts.{key} {prompt!r} is not one of student.prompts and has no `{{instruction}}`"
                )
        for number, stage in enumerate(self.stages):
            if unknown := [name for name in stage.teachers or () if name not in names]:
                raise ValueError(f"stages.{number}.teachers names {unknown[0]!r}; the recipe has {', '.join(names)}")
            # Only here are the student and the stages known together.
            stage.require_fit(f"stages.{number}", self.student)
        if self.release.dimension in self.student.matryoshka_dims and not self.trains_matryoshka_heads(
            len(self.stages)
        ):
            raise ValueError(
                f"release.dimension {self.release.dimension}: no stage trains matryoshka_heads, so it is untrained"
            )
        return self

    @model_validator(mode="after")
    def _require_pairs(self) -> Self:
        names = [teacher.name for teacher in self.teachers]
        if self.mined_negatives and self.mined_negatives.teacher not in names:
            raise ValueError(
                f"mined_negatives.teacher names {self.mined_negatives.teacher!r}; the recipe has {', '.join(names)}"
            )
        gives = any(source.gives_pairs for source in self.corpus.sources)
        if self.mined_negatives and not gives:
            raise ValueError("mined_negatives are for pairs of texts, and no source gives any; remove it, or add one")
        if self.pair_scores and not gives:
            raise ValueError("pair_scores are of pairs of texts, and no source gives any; remove them, or add one")
        if twice := doubled([scorer.name for scorer in self.pair_scores]):
            raise ValueError(f"two of pair_scores are named {twice[0]!r}; each needs a name of its own")
        for number, scorer in enumerate(self.pair_scores):
            scorer.require_fit(f"pair_scores.{number}", names)
        for number, stage in enumerate(self.stages):
            if stage.data == "pairs" and not gives:
                raise ValueError(
                    f"stages.{number}: method {stage.method} needs pairs of texts, and no source gives any; map "
                    "`query` and `positive` in the columns of a source, or set its `pairs`"
                )
        return self

    @model_validator(mode="after")
    def _require_retrievers(self) -> Self:
        if twice := doubled([retriever.name for retriever in self.retrievers]):
            raise ValueError(f"two retrievers are named {twice[0]!r}; each needs a name of its own")
        if DENSE in (retriever.name for retriever in self.retrievers):
            raise ValueError(f"a retriever cannot be named {DENSE!r}: the scores of the dense student are; rename it")
        if self.retrievers and not any(source.gives_pairs for source in self.corpus.sources):
            raise ValueError(
                "retrievers learn from pairs of texts, and no source gives any; map `query` and `positive` in the "
                "columns of a source, or set its `pairs`"
            )
        known = [scorer.name for scorer in self.pair_scores]
        for retriever in self.retrievers:
            if retriever.scores is not None and retriever.scores not in known:
                raise ValueError(
                    f"retriever {retriever.name!r}: scores names {retriever.scores!r}; the recipe has pair_scores "
                    f"{', '.join(known) or 'of no name'}"
                )
        self._require_scored_before()
        return self

    def _require_scored_before(self) -> None:
        """Retrievers that score pairs are trained before those that learn from these scores."""
        learnt = {retriever.name: retriever.scores for retriever in self.retrievers}
        scored_by = {scorer.name: scorer.scored_by() for scorer in self.pair_scores}
        for number, scorer in enumerate(self.pair_scores):
            retriever = scorer.scored_by()
            if retriever is not None and retriever not in learnt:
                raise ValueError(
                    f"pair_scores.{number}.retriever names {retriever!r}; the recipe has retrievers "
                    f"{', '.join(learnt) or 'of no name'}"
                )
            seen: list[str] = []
            while retriever is not None:
                if retriever in seen:
                    raise ValueError(
                        f"pair_scores.{number}: retriever {retriever!r} learns from scores that it gives itself "
                        f"({' -> '.join([*seen, retriever])})"
                    )
                seen.append(retriever)
                retriever = scored_by.get(learnt.get(retriever) or "")

    @model_validator(mode="after")
    def _require_test_texts(self) -> Self:
        if HELD_OUT in self.evaluation.tasks and not self.corpus.test:
            raise ValueError("corpus.test is 0, and held_out tasks are made of test texts; raise it, or change `tasks`")
        return self

    def trains_matryoshka_heads(self, stages: int) -> bool:
        """Whether the Matryoshka heads are trained after the first stages.

        A student whose heads are prefixes of the full head has no heads of their own to train: they count as trained.

        Args:
            stages: How many stages.
        """
        return self.student.matryoshka_heads == "prefix" or any(
            stage.trains_matryoshka_heads for stage in self.stages[:stages]
        )

    def published_models(self) -> dict[str, ModelSource]:
        """The models of the student, of teachers, retrievers and scorers, by what uses them, as messages name it."""
        teachers = {f"teacher {each.name!r}": model for each in self.teachers if (model := each.published_model())}
        starts = {f"retriever {each.name!r}": each.start for each in self.retrievers if each.start}
        scorers = {each.owner: model for each in self.pair_scores if (model := each.published_model())}
        return {"student": self.student, **teachers, **starts, **scorers}

    def taught_by(self, stages: int | None = None) -> tuple[str, ...]:
        """Names of the teachers that the first stages learn from, in the order of the concatenation.

        Args:
            stages: How many stages; all when left out.
        """
        names = [teacher.name for teacher in self.teachers]
        taught = {
            name for stage in self.stages[:stages] for name in (names if stage.teachers is None else stage.teachers)
        }
        return tuple(name for name in names if name in taught)

    def stated_terms(self) -> dict[str, Terms]:
        """What the providers of those teachers allow that the student learns from, by teacher, where it is stated."""
        taught = self.taught_by()
        return {each.name: terms for each in self.teachers if each.name in taught and (terms := each.stated_terms())}

    def retriever_terms(self) -> dict[str, Terms]:
        """The same of what retrievers learn from: the student and its teachers, and what scores their candidates."""
        scorers = [scorer for scorer in self.pair_scores if scorer.name in {each.scores for each in self.retrievers}]
        names = [teacher.name for teacher in self.teachers]
        read = {name for scorer in scorers for name in scorer.taught_by(names)}
        stated = {each.name: each.stated_terms() for each in self.teachers if each.name in {*self.taught_by(), *read}}
        stated |= {scorer.owner: scorer.stated_terms() for scorer in scorers}
        return {name: terms for name, terms in stated.items() if terms}

    @property
    def digest(self) -> str:
        """Digest of what the recipe says; comments and the order of keys do not count."""
        # Of the validated values: a default that is written out leaves the digest as it is.
        return digest(self.model_dump(mode="json"))
