"""The recipe's part on evaluation: which tasks, where their data lies, and what is put before their texts."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stella_assets.core.config import ConfigModel, PathAware, Positive

HELD_OUT = "held_out"
"""Among `evaluation.tasks`, the tasks built from the corpus' test split."""

HeldOutKind = Literal["retrieval", "classification", "pair_classification"]
CustomKind = Literal["sts", "classification", "clustering", "pair_classification", "retrieval", "reranking"]
TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")]


class HeldOut(ConfigModel):
    """mteb tasks built from the corpus' test split."""

    kinds: Annotated[tuple[HeldOutKind, ...], Field(min_length=1)] | None = Field(
        default=None, description="left out: all that the corpus can serve"
    )
    max_documents: Positive = Field(default=1000, description="test documents that tasks are built from")


class CustomTask(PathAware):
    """A task of one's own, from a Parquet file; retrieval is a folder of `corpus`, `queries` and `qrels`."""

    name: TaskName
    kind: CustomKind
    path: str
    instruction: str = Field("", description="what `{instruction}` in a prompt stands for on this task")


class Evaluation(PathAware):
    """What every model is scored on."""

    tasks: tuple[str, ...] = Field(
        default=(HELD_OUT,), description="`held_out`, and mteb's tasks and benchmarks by name"
    )
    data: str | None = Field(default=None, description="a folder with the data of mteb's tasks, instead of the hub")
    custom_tasks: tuple[CustomTask, ...] = ()
    splits: dict[str, dict[str, Annotated[tuple[str, ...], Field(min_length=1)]]] = Field(
        default={}, description="by task, then by mteb's split: which splits of a local file are read as it"
    )
    quantizations: tuple[Literal["int8", "binary"], ...] = Field(
        default=(), description="also score the last stage with vectors stored so, at each dimension"
    )
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(), description="also train with these seeds and score the last stage: the report gives the spread"
    )
    paraphrases: bool = Field(default=False, description="also score the last stage with its prompts in other words")
    reference_scores: str | None = Field(
        default=None, description="a CSV of public scores to stand beside, instead of those that come with this package"
    )
    held_out: HeldOut = HeldOut()
    prompts: dict[str, str] = Field(
        default={},
        description="the student's, by mteb's keys: a name of student.prompts, or a text with `{instruction}`",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [*self.tasks, *(task.name for task in self.custom_tasks)]
        if not names:
            raise ValueError(f"no task to score on; name some in `tasks`, as `{HELD_OUT}`, or in `custom_tasks`")
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two tasks are named {doubled[0]!r}; each needs a name of its own")
        return self
