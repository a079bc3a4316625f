"""The base model as its authors ship it: their modules, pooling, length and prompts, not those of the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from stella_assets.core.config import ModelSource
from stella_assets.core.devices import Compute
from stella_assets.evaluation.encoders import EncodeRequest, EncoderIdentity
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.encode import measure_speed
from stella_assets.teachers.kinds.base import Role, prompt_role
from stella_assets.teachers.kinds.sentence_transformers import SentenceTransformersModel, SentenceTransformersTeacher
from stella_assets.teachers.teacher_vectors import fill_and_fetch
from stella_assets.teachers.vectors import StateTable

# The loader never goes above the model's own limit, which then decides.
NO_LIMIT = 2**20
OWN_DEFAULT: Role = "document"
"""The role of texts without a prompt for the task: they get the model's default, which few models have."""


def authors_model(source: ModelSource, compute: Compute, name: str = "base_model") -> SentenceTransformersModel:
    """A model with its authors' modules; it is loaded when it is first used.

    Args:
        source: Where it is.
        compute: What it computes with.
        name: For progress and errors.
    """
    # A teacher of the same model in all but the recipe: both load and encode by one code.
    settings = {key: getattr(source, key) for key in ModelSource.model_fields}
    of_kind = {"kind": "sentence_transformers", "name": name, "licence": "", "max_length": NO_LIMIT}
    # In float32, as students are scored.
    teacher = SentenceTransformersTeacher.model_validate(
        settings | of_kind | {"dtype": "float32"}, context={"folder": source.resolve(".")}
    )
    return SentenceTransformersModel(teacher, compute)


class BaseModelEmbedder:
    """A published model, with its vectors by text in the store.

    It gives the vectors of `SentenceTransformer.encode` of the authors' folder, of unit norm. As in mteb, a task gets
    the model's prompt under mteb's key, e.g. `query`.

    Args:
        source: Where the model is.
        workspace: Where vectors are stored.
        compute: What it computes with.
        name: For progress and errors.
    """

    def __init__(self, source: ModelSource, workspace: Workspace, compute: Compute, name: str = "base_model") -> None:
        self._workspace, self._compute = workspace, compute
        self._model = authors_model(source, compute, name)

    @cached_property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self._model.dim

    def identity(self) -> EncoderIdentity:
        """The model's fingerprint, number format and own length."""
        model = self._model
        return EncoderIdentity("base_model", model.fingerprint(OWN_DEFAULT), model.dtype, model.model.max_seq_length)

    def prompt(self, request: EncodeRequest) -> str | None:
        """The authors' for the task; None for their default."""
        from mteb.models.abs_encoder import get_prompt_name

        # Not `request.choose`, which keeps prompts of tasks from documents: mteb and the authors' scores do not.
        key = get_prompt_name(self.prompts, request.task, request.prompt_type)
        return self.prompts.get(key or "")

    def embed(self, texts: Sequence[str], request: EncodeRequest) -> np.ndarray:
        """Unit vectors `[len(texts), dim]` float16: stored ones are read, others are computed and stored."""
        return self.embed_with(texts, self.prompt(request))

    @property
    def prompts(self) -> dict[str, str]:
        """The authors' prompts, by name."""
        return dict(self._model.model.prompts)

    def embed_with(self, texts: Sequence[str], prompt: str | None) -> np.ndarray:
        """Unit vectors `[len(texts), dim]` float16 of texts after a prompt; None for the authors' default."""
        role = OWN_DEFAULT if prompt is None else prompt_role(prompt)
        # The prompt is in the fingerprint and not in the text: a model may leave it out of the pooling.
        table = StateTable(self._workspace, self._model.fingerprint(role), self.dim)
        return fill_and_fetch(table, texts, lambda missing: self._model.encode(missing, role))

    def parameters(self) -> int:
        """Number of parameters."""
        return self._model.parameters()

    def texts_per_second(self, texts: list[str]) -> float:
        """Its speed."""
        return measure_speed(lambda sample: self._model.encode(sample, OWN_DEFAULT), texts)
