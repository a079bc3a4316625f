"""What every kind of student has: settings, and what training, evaluation and release ask of a loaded one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, Self

from pydantic import Field, model_validator

from stella_assets.core.config import ModelSource, Positive
from stella_assets.core.errors import UserError
from stella_assets.core.registry import Registry
from stella_assets.corpus.text import uniform

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from stella_assets.core.devices import Compute

FULL = "full"
"""Name of the head that learns the teachers' whole vector."""
TrainedLayers = int | Literal["all"]
"""The last encoder layers that a stage trains; `all` includes the embeddings."""


class StudentError(UserError):
    """A student that cannot be made as the recipe says."""


class TrainsLayers(Protocol):
    """What a student asks of the stages that train it."""

    @property
    def train_layers(self) -> TrainedLayers:
        """The last encoder layers that train."""


class Student(Protocol):
    """A student in memory.

    Heads have names: `full` for the one that learns the teachers' whole vector, and the dimension as text, e.g. `256`,
    for a Matryoshka head.
    """

    # Read-only, so that a kind may declare a narrower type: mypy takes a writable attribute as invariant.
    @property
    def dimensions(self) -> Mapping[str, int]:
        """Dimensions of the vectors of each head, `full` first."""

    def encode(self, texts: Sequence[str], head: str = FULL) -> np.ndarray:
        """Encode texts.

        Args:
            texts: With their prompts.
            head: Name of the head.

        Returns:
            Unit vectors `[len(texts), dimensions[head]]` float32, in the order of `texts`.
        """

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that train, by name."""

    def save(self, folder: Path, default_head: str, prompts: Mapping[str, str]) -> None:
        """Write the files that `StudentConfig.load` reads.

        Args:
            folder: Created where it does not exist.
            default_head: The head that people get who load the folder with another library.
            prompts: By name; part of the saved model.
        """


class StudentConfig(ModelSource):
    """Settings that all kinds of student share. A kind adds its own, and the literal field `kind`."""

    kind: str
    max_length: Positive = Field(512, le=1_048_576, description="tokens of a text; the rest of it is cut off")
    prompts: dict[str, str] = Field({}, description="by name; they are part of the release")
    query_prompts: tuple[str, ...] = Field(
        (), description="names of the prompts put before training queries, one per query, chosen by the text's hash"
    )

    # Checked when the recipe is read: `prompt_of` would otherwise fail at the first query, after the corpus is built.
    @model_validator(mode="after")
    def _require_known_prompts(self) -> Self:
        if unknown := [name for name in self.query_prompts if name not in self.prompts]:
            raise ValueError(f"query_prompts names {unknown[0]!r}, which `prompts` does not have")
        return self

    def prompt_of(self, text_id: str, role: str) -> str:
        """What the student reads before a training text: queries get one of the prompts, documents none.

        Args:
            text_id: Hash of the text; it decides which prompt a query gets.
            role: `query` or `document`.

        Returns:
            The prompt; empty for documents and where the recipe names no `query_prompts`.
        """
        if role != "query" or not self.query_prompts:
            return ""
        # By hash and not by a random stream: a text keeps its prompt when others join the corpus.
        return self.prompts[self.query_prompts[int(uniform("prompt", text_id) * len(self.query_prompts))]]

    @abstractmethod
    def initialise(
        self, full_dimension: int | None, seed: int, compute: Compute, weights: Path | None = None
    ) -> Student:
        """The student before training.

        Args:
            full_dimension: Dimensions of the head `full`; None for no heads, which is the base model.
            seed: Of the heads.
            compute: Where it computes.
            weights: Folder of a saved student, whose encoder is taken instead of the base model's.

        Returns:
            The student, on the device of `compute`.

        Raises:
            StudentError: The base model cannot be used with these settings.
        """

    @abstractmethod
    def load(self, folder: Path, compute: Compute) -> Student:
        """Read a student from the folder that `Student.save` wrote.

        Args:
            folder: With the files of `Student.save`.
            compute: Where it computes.

        Returns:
            The student, which gives the same vectors as the one that was saved.
        """

    @abstractmethod
    def check(self, stages: Sequence[TrainsLayers]) -> None:
        """Find out what a run would fail on later, from the base model's files alone.

        Args:
            stages: Those that train it.

        Raises:
            UserError: The model, a layer or the length cannot be used.
        """


STUDENTS: Registry[StudentConfig] = Registry("student")
