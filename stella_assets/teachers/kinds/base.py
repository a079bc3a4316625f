"""What every teacher is: settings in a recipe, and a model that turns texts into embeddings."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
from pydantic import Field

from stella_assets.core.config import ConfigModel, Name, Positive
from stella_assets.core.data import EmbeddingKind
from stella_assets.core.devices import Compute
from stella_assets.core.registry import Registry

Role = str
"""What decides the prompt: the role of a text, `query` or `document`, or a prompt itself; see `prompt_role`."""
# No role of a corpus begins with it.
PROMPT = "prompt:"


def prompt_role(prompt: str) -> Role:
    """The role of texts that this very prompt is put before."""
    return PROMPT + prompt


def prompt_of(role: Role) -> str | None:
    """The prompt of a role that `prompt_role` made; None for `query` and `document`."""
    return role.removeprefix(PROMPT) if role.startswith(PROMPT) else None


class TeacherModel(Protocol):
    """An opened teacher: turns texts into embeddings."""

    @property
    def embedding(self) -> EmbeddingKind:
        """What it makes of a text: one unit vector, one vector per token, or a score. It decides how it is stored."""

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""

    def describe(self, role: Role) -> dict[str, Any]:
        """Everything that an embedding depends on in addition to the text, as plain values."""

    def fingerprint(self, role: Role) -> str:
        """Names what `describe` says: equal fingerprints give equal embeddings."""

    def encode(self, texts: list[str], role: Role) -> np.ndarray:
        """Embeddings in the order of `texts`.

        Args:
            texts: May repeat.
            role: Decides the prompt that is put before them.

        Returns:
            For `embedding` "vector", unit-norm vectors `[len(texts), dim]` float32.
        """

    def parameters(self) -> int:
        """Number of parameters."""


@dataclass(frozen=True)
class EncoderLimits:
    """How an encoder computes, for the record of a score.

    Attributes:
        dtype: Number format of the encoder; None where there is no choice.
        max_length: Tokens of a text that it reads; None where there is no limit.
    """

    dtype: str | None = None
    max_length: int | None = None


class TeacherConfig(ConfigModel):
    """Settings that every teacher has. Its unit vector is scaled by `weight` in the concatenation.

    A kind is a subclass with a field `kind: Literal["..."]`, registered with `TEACHERS`. It must define
    `external_versions`, `open` and `check`; the other methods have defaults for a model with fixed weights.

    Example:
        >>> @TEACHERS.register
        ... class HashTeacher(TeacherConfig):
        ...     '''Random directions, one per word.'''
        ...     kind: Literal["hash"]
    """

    icons: ClassVar[frozenset[str]] = frozenset()
    """Technologies, for the UI."""
    fitted: ClassVar[bool] = False
    """Whether it is fitted to the corpus: then another corpus makes another teacher, and all its vectors are new."""

    name: Name = Field(description="of the teacher, in tables and columns")
    kind: str = Field(description="which of the kinds below")
    licence: str = Field(description="SPDX expression or plain words; the model card lists what it asks")
    weight: Annotated[float, Field(gt=0)] = Field(1.0, description="scales its vectors in the concatenation")
    unit_rows: Positive = Field(32_768, description="rows embedded between two commits")

    @abstractmethod
    def external_versions(self, compute: Compute) -> Mapping[str, str]:
        """What its vectors depend on outside the recipe, e.g. a digest of the weights. No model is loaded.

        Args:
            compute: What it would be opened with.

        Raises:
            UserError: Its files do not exist.
        """

    @abstractmethod
    def open(self, folder: Path, compute: Compute) -> TeacherModel:
        """The model, ready to encode.

        Args:
            folder: Of its artefact; what `fit` wrote is there.
            compute: Device, number format and threads to encode with.

        Raises:
            UserError: Its files do not exist or do not fit together.
        """

    @abstractmethod
    def check(self) -> int | None:
        """Dimensions of its vectors, from its files alone; None where they are not on this machine yet.

        Raises:
            UserError: Its files do not exist or do not fit together.
        """

    def identity_settings(self) -> dict[str, Any]:
        """The settings that decide its vectors. Where a model's files are is not among them: their digest is."""
        # The store keeps unit vectors, so `weight` does not change them; nor do the size of a unit and the licence.
        return self.settings("weight", "unit_rows", "licence")

    def fit(self, texts: Sequence[str], folder: Path) -> None:
        """Fit it to texts and write what was learned into a folder; nothing for a model with fixed weights.

        Args:
            texts: Training texts.
            folder: Of its artefact.

        Raises:
            UserError: The texts are too few.
        """
        del texts, folder

    def task_prompts(self) -> Mapping[str, str]:
        """What is put before the texts of evaluation tasks, by mteb's keys."""
        return {}

    def limits(self, compute: Compute) -> EncoderLimits:
        """How it computes."""
        del compute
        return EncoderLimits()

    def known_training_datasets(self) -> set[str] | None:
        """Names of mteb's tasks whose data it was trained on; None where that is not known."""
        return None

    def link(self) -> str:
        """Its name in Markdown, with a link to its page if it has one."""
        return f"`{self.name}`"


TEACHERS: Registry[TeacherConfig] = Registry("teacher")


def published_training_datasets(model: str) -> set[str] | None:
    """What mteb knows of the training data of a published model, as names of its tasks; None where it does not."""
    import mteb

    try:
        # Without a request to the hub: the answer must not depend on the network.
        known = mteb.get_model_meta(model, fetch_from_hf=False).get_training_datasets()
    except (KeyError, ValueError):  # mteb does not know the model
        return None
    return None if known is None else set(known)


def hub_link(name: str, model: str, revision: str | None) -> str:
    """A teacher's name in Markdown, with a link to its commit on the Hugging Face hub."""
    return f"[{name}](https://huggingface.co/{model}/tree/{revision})"
