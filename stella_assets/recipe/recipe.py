"""The whole recipe."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from stella_assets.core.config import ConfigModel, Name
from stella_assets.core.manifest import digest
from stella_assets.corpus.settings import Corpus
from stella_assets.evaluation.settings import Evaluation
from stella_assets.recipe.presets import expand_preset
from stella_assets.recipe.redistil import Redistil
from stella_assets.release.settings import Release
from stella_assets.teachers.settings import Teacher
from stella_assets.training.settings import Stage, Student

RESERVED_NAMES = frozenset(
    {
        "artefacts",
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

OWNER = re.compile(r"team:[\w.-]+|[\w.+-]+@[\w-]+(\.[\w-]+)+")


class Recipe(ConfigModel):
    """Everything that decides what is distilled."""

    name: Name
    description: str
    owners: tuple[str, ...] = Field(default=(), description="who answers for it: mail addresses, or `team:NAME`")
    seed: Annotated[int, Field(ge=0)] = 0
    corpus: Corpus
    teachers: tuple[Teacher, ...] = Field(min_length=1)
    student: Student
    stages: tuple[Stage, ...] = Field(min_length=1, validate_default=True, default="robust")
    evaluation: Evaluation = Evaluation()
    release: Release
    redistil: Redistil | None = Field(default=None, description="`true` or settings: do it all again by itself")

    @field_validator("owners")
    @classmethod
    def _can_be_reached(cls, owners: tuple[str, ...]) -> tuple[str, ...]:
        for owner in owners:
            if not OWNER.fullmatch(owner):
                raise ValueError(f"{owner!r} is neither a mail address nor `team:NAME`")
        return owners

    @field_validator("stages", mode="before")
    @classmethod
    def _preset(cls, raw: Any) -> Any:
        return expand_preset(raw)

    @field_validator("redistil", mode="before")
    @classmethod
    def _switch(cls, redistil: Any) -> Any:
        return {} if redistil is True else None if redistil is False else redistil

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.name in RESERVED_NAMES:
            raise ValueError(f"name {self.name!r} is a folder of STELLA_HOME; choose another")
        names = [teacher.name for teacher in self.teachers]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two teachers are named {doubled[0]!r}; each needs a name of its own")
        if self.corpus.semantic and self.corpus.semantic.teacher not in names:
            raise ValueError(
                f"corpus.semantic.teacher names {self.corpus.semantic.teacher!r}; the recipe has {', '.join(names)}"
            )
        seeds = [self.seed, *self.evaluation.seeds]
        if doubled_seeds := [seed for seed in dict.fromkeys(seeds) if seeds.count(seed) > 1]:
            raise ValueError(
                f"evaluation.seeds: {doubled_seeds[0]} is there twice or is the recipe's own seed; name others"
            )
        for key, prompt in self.evaluation.prompts.items():
            if prompt not in self.student.prompts and "{instruction}" not in prompt:
                raise ValueError(
                    f"evaluation.prompts.{key} {prompt!r} is none of student.prompts and has no `{{instruction}}`"
                )
        for number, stage in enumerate(self.stages, 1):
            self._check_stage(number, stage, names)
        if self.release.dimension in self.student.matryoshka_dims and not self.trains_matryoshka_heads(
            len(self.stages)
        ):
            raise ValueError(
                f"release.dimension {self.release.dimension}: no stage trains matryoshka_heads, so it is untrained"
            )
        return self

    def _check_stage(self, number: int, stage: Stage, teachers: list[str]) -> None:
        if unknown := [name for name in stage.teachers or () if name not in teachers]:
            raise ValueError(f"stages.{number - 1}.teachers names {unknown[0]!r}; the recipe has {', '.join(teachers)}")
        by_dimension = stage.matryoshka_heads if isinstance(stage.matryoshka_heads, dict) else {}
        if unknown_dims := [dim for dim in by_dimension if dim not in self.student.matryoshka_dims]:
            raise ValueError(
                f"stages.{number - 1}.matryoshka_heads names {unknown_dims[0]}, which student.matryoshka_dims does not have"
            )
        if stage.method == "closed_form" and self.student.head_hidden:
            raise ValueError(
                f"stages.{number - 1}: a head of two layers (student.head_hidden) cannot be solved; train it"
            )

    def trains_matryoshka_heads(self, stages: int) -> bool:
        """Whether the short heads are worth something after the first `stages` stages."""
        return self.student.matryoshka_heads == "prefix" or any(
            stage.matryoshka_heads for stage in self.stages[:stages]
        )

    def seed_of(self, *stream: str) -> int:
        """The seed of a named random stream; streams do not disturb one another."""
        return int(digest([self.seed, *stream])[:8], 16)

    @property
    def digest(self) -> str:
        """Digest of what the recipe says; comments and order of keys do not count."""
        return digest(self.model_dump(mode="json"))
