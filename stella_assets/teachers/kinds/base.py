"""What every teacher is: settings in a recipe, and a model that turns texts into embeddings."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol
from urllib.parse import quote

import numpy as np
from pydantic import Field

from stella_assets.core.config import ConfigModel, ModelSource, Name, Positive
from stella_assets.core.data import EmbeddingKind
from stella_assets.core.devices import Compute
from stella_assets.core.environments import EnvironmentConfig
from stella_assets.core.registry import Registry
from stella_assets.core.services import Services
from stella_assets.corpus.read import CorpusTexts
from stella_assets.storage.canonical import digest
from stella_assets.storage.keyed_table import KeyedTable
from stella_assets.storage.keys import Keys, Positions
from stella_assets.teachers.forecast import Forecast
from stella_assets.teachers.terms import Terms

Center = bool | Literal["auto"]
"""Whether a teacher's mean vector is taken away before its vectors are joined with those of others."""
NOT_OF_VECTORS = ("weight", "center", "unit_rows", "licence")
"""Settings of every teacher that its vectors do not depend on."""
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


@dataclass(frozen=True)
class Wanted:
    """Texts of one role that have no vector.

    Attributes:
        role: Of all.
        keys: Of the texts.
        read: The texts at positions.
    """

    role: Role
    keys: Keys
    read: Callable[[Positions], list[str]]


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
            For `embedding` "vector", unit-norm vectors `[len(texts), dim]` float32; float16 where they are kept so.

        Raises:
            RefusedTextsError: It does not take some of the texts.
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


class ExpectedCosine(ConfigModel):
    """The cosine of two texts, as the model's card prints it."""

    a: str = Field(description="a text, without a prompt")
    b: str = Field(description="the other text")
    role_a: Literal["query", "document"] = Field("document", description="decides the prompt of `a`")
    role_b: Literal["query", "document"] = Field("document", description="decides the prompt of `b`")
    cosine: Annotated[float, Field(ge=-1, le=1)] = Field(description="what the card says")
    tolerance: Annotated[float, Field(gt=0, lt=1)] = Field(0.01, description="largest difference that is accepted")


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
    paid: ClassVar[bool] = False
    """Whether others compute its vectors, for money: then nothing is sent to it but texts that a person asked for."""

    name: Name = Field(description="of the teacher, in tables and columns")
    kind: str = Field(description="which of the kinds below")
    licence: str = Field(description="SPDX expression or plain words; the model card lists what it asks")
    weight: Annotated[float, Field(gt=0, le=1e6)] = Field(1.0, description="scales its vectors in the concatenation")
    # Excluded where it is not given: a recipe has the digest that it had before there was such a key.
    center: Center = Field(
        "auto",
        description="take away the mean of its vectors before they are joined; `auto` where they lie in a narrow cone",
        exclude_if=lambda center: center == "auto",
    )
    unit_rows: Positive = Field(32_768, le=262_144, description="rows embedded between two commits")

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
        return self.settings(*NOT_OF_VECTORS)

    def fit(self, texts: Sequence[str], folder: Path) -> None:
        """Fit it to texts and write what was learned into a folder; nothing for a model with fixed weights.

        Args:
            texts: Training texts.
            folder: Of its artefact.

        Raises:
            UserError: The texts are too few.
        """
        del texts, folder

    def own_environment(self) -> EnvironmentConfig | None:
        """The Python environment that its model needs; None where it runs in this one."""
        return None

    def base_folder(self) -> Path | None:
        """Where its relative paths count from; None where its model is not loaded from files of its authors."""
        return None

    def reference(self, model: Any, texts: list[str], role: Role) -> np.ndarray:
        """Vectors of texts as the library of the model's authors computes them, not in batches of our own.

        Args:
            model: What `open` returned.
            texts: A few.
            role: Decides the prompt.

        Returns:
            `[len(texts), dim]` float32, of unit norm; those of `model` itself where nothing else computes them.
        """
        vectors: np.ndarray = model.encode(texts, role)
        return vectors

    def known_cosines(self) -> Sequence[ExpectedCosine]:
        """Cosines that the recipe expects of it."""
        return ()

    def task_prompts(self) -> Mapping[str, str]:
        """What is put before the texts of evaluation tasks, by mteb's keys."""
        return {}

    def encoder_limits(self, compute: Compute) -> EncoderLimits:
        """How it computes."""
        del compute
        return EncoderLimits()

    def known_training_datasets(self) -> set[str] | None:
        """Names of mteb's tasks whose data it was trained on; None where that is not known."""
        return None

    def published_model(self) -> ModelSource | None:
        """Where its model is; None for a teacher without a model of its authors."""
        return None

    def encode_again(self, model: Any, texts: list[str], role: Role) -> np.ndarray:
        """Vectors of texts, computed now and not looked up, to compare with those that were stored.

        Args:
            model: What `open` returned.
            texts: A few.
            role: Of all of them.
        """
        vectors: np.ndarray = model.encode(texts, role)
        return vectors

    def check_access(self, services: Services) -> None:
        """Make sure that it can be asked; nothing for a model that runs here.

        Raises:
            UserError: Something is missing that it needs, e.g. a key.
        """
        del services

    def is_scored(self) -> bool:
        """Whether it is scored on the evaluation tasks, which means to encode their texts."""
        return True

    def fetch_ahead(self, model: Any, wanted: Callable[[], Iterable[Wanted]]) -> None:
        """Get ready for the texts of a corpus that are encoded next; nothing for most.

        Args:
            model: What `open` returned.
            wanted: The texts that have no vector.
        """
        del model, wanted

    def refused_texts(self, model: Any, role: Role) -> Mapping[str, str]:
        """Why it does not take texts, by id; empty for a model that takes any text.

        Args:
            model: What `open` returned.
            role: Of the texts.
        """
        del model, role
        return {}

    def forecast(self, model: Any, texts: CorpusTexts, stored: Mapping[Role, KeyedTable[Any]]) -> Forecast | None:
        """What it would cost to embed a corpus; None for a model that runs here. Nothing is sent.

        Args:
            model: What `open` returned.
            texts: The corpus.
            stored: The table of each role.
        """
        del model, texts, stored
        return None

    def forecast_of(self, texts: int, mean_bytes: float | None) -> Forecast | None:
        """The same for texts that are not made yet.

        Args:
            texts: How many.
            mean_bytes: Of one; None where nothing tells.
        """
        del texts, mean_bytes
        return None

    def cost(self, model: Any, texts: Iterable[tuple[Role, Keys, Any]]) -> dict[str, Any]:
        """What the vectors of texts have cost, whenever they were paid; empty for a model that runs here.

        Args:
            model: What `open` returned.
            texts: By role, their keys.
        """
        del model, texts
        return {}

    def trust_reason(self) -> str | None:
        """Why vectors that nobody checked are believed to be its own; None where all are checked."""
        return None

    def stated_terms(self) -> Terms | None:
        """What its provider allows; None for a model that runs here, whose licence says it."""
        return None

    def link(self) -> str:
        """Its name in Markdown, with a link to its page if it has one."""
        return f"`{self.name}`"


TEACHERS: Registry[TeacherConfig] = Registry("teacher")


class PublishedTeacher(TeacherConfig, ModelSource):
    """What teachers share whose model is a folder, or a published one on the Hugging Face hub."""

    icons: ClassVar[frozenset[str]] = frozenset({"huggingface"})

    # Excluded where there are none, so that only who states some has other identities.
    expected_cosines: tuple[ExpectedCosine, ...] = Field(
        (),
        description="cosines of texts, e.g. from the model's card; checked before the first vector is stored",
        exclude_if=lambda stated: not stated,
    )

    def base_folder(self) -> Path | None:
        """The recipe's folder."""
        return self.resolve(".")

    def published_model(self) -> ModelSource | None:
        """Itself."""
        return self

    def known_cosines(self) -> Sequence[ExpectedCosine]:
        """Its `expected_cosines`."""
        return self.expected_cosines

    def known_training_datasets(self) -> set[str] | None:
        """What mteb knows of the model."""
        import mteb

        try:
            # Without a request to the hub: the answer must not depend on the network.
            known = mteb.get_model_meta(self.model, fetch_from_hf=False).get_training_datasets()
        except (KeyError, ValueError):  # mteb does not know the model
            return None
        return None if known is None else set(known)

    def link(self) -> str:
        """Its name; with a link to its commit on the hub if it is there."""
        if not self.on_hub:
            return super().link()
        return f"[{self.name}](https://huggingface.co/{quote(self.model)}/tree/{quote(str(self.revision))})"


def fingerprint_of(description: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that name what `TeacherModel.describe` says.

    The model's place is left out: the same files elsewhere are the same teacher.
    """
    return digest({key: value for key, value in description.items() if key != "model"})[:16]
