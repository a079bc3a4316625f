"""The recipe's part on evaluation: which tasks, where their data is, and the prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from stella_assets.core.config import ConfigModel, PathAware, Positive, Seed, doubled
from stella_assets.evaluation.kinds import TASK_KINDS, TaskKind

HELD_OUT = "held_out"
"""Among `evaluation.tasks`, the tasks built from the corpus' test split."""

HeldOutKind = Literal["retrieval", "classification", "pair_classification"]
if TYPE_CHECKING:
    CustomTask = TaskKind
else:
    # Built from the registry, so that installed packages can add kinds; a type checker sees the base class.
    CustomTask = TASK_KINDS.union()


class HeldOut(ConfigModel):
    """mteb tasks built from the corpus' test split."""

    kinds: Annotated[tuple[HeldOutKind, ...], Field(min_length=1)] | None = Field(
        default=None, description="left out: all kinds that the corpus has enough texts for"
    )
    max_documents: Positive = Field(
        default=1000,
        le=100_000,
        description="test documents that tasks are built from; where the corpus has pairs, first those that answer",
    )


class EvaluationSettings(PathAware):
    """What every model is scored on."""

    tasks: tuple[str, ...] = Field(
        default=(HELD_OUT,), description="`held_out`, and mteb's tasks and benchmarks by name"
    )
    data: str | None = Field(default=None, description="a folder with the data of mteb's tasks, instead of the hub")
    custom_tasks: tuple[CustomTask, ...] = Field(default=(), description="tasks of your own, from Parquet files")
    splits: dict[str, dict[str, Annotated[tuple[str, ...], Field(min_length=1)]]] = Field(
        default={}, description="by task, then by mteb's split: which splits of a local file are read as it"
    )
    quantizations: tuple[Literal["int8", "binary"], ...] = Field(
        default=(), description="also score the last stage with vectors stored in fewer bits, at each dimension"
    )
    seeds: tuple[Seed, ...] = Field(
        default=(), description="also train with these seeds and score the last stage: the report gives the spread"
    )
    paraphrases: bool = Field(default=False, description="also score the last stage with paraphrased prompts")
    reference_scores: str | None = Field(
        default=None, description="a CSV of public scores to compare with, instead of those that come with this package"
    )
    held_out: HeldOut = Field(
        default=HeldOut(), description="which tasks are built from the corpus' test split, if `tasks` has `held_out`"
    )
    prompts: dict[str, str] = Field(
        default={},
        description="the student's, by mteb's keys: a name of student.prompts, or a text with `{instruction}`",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [*self.tasks, *(task.name for task in self.custom_tasks)]
        if not names:
            raise ValueError(f"no task to score on; name some in `tasks`, e.g. `{HELD_OUT}`, or in `custom_tasks`")
        # Scores and samples are stored by the name of the task.
        if twice := doubled(names):
            raise ValueError(f"two tasks are named {twice[0]!r}; each needs a name of its own")
        return self
