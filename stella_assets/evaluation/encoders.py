"""Models as encoders of mteb, and students among them. A text is encoded once, whatever needs its vector.

Shapes: B texts, H hidden dimensions of the student's encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from mteb.models.abs_encoder import AbsEncoder, get_prompt_name
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import PromptType

from stella_assets.storage.canonical import digest
from stella_assets.storage.integrity import mend_table
from stella_assets.storage.workspace import Workspace
from stella_assets.students.dense.digests import encoder_digest, head_digest
from stella_assets.teachers.encode import measure_speed
from stella_assets.teachers.tables import STATES
from stella_assets.teachers.teacher_vectors import fill_and_fetch
from stella_assets.teachers.vectors import StateTable

if TYPE_CHECKING:
    from stella_assets.students.dense.model import DenseStudent

INSTRUCTION = "{instruction}"
Prompts = Mapping[str, str]
"""Prompts by mteb's keys: `<task>-query`, `<task>`, `<task type>-query`, `<task type>`, `query`, or with `document`."""


@dataclass(frozen=True)
class EncodeRequest:
    """Which texts mteb asks vectors for.

    Attributes:
        task: mteb's metadata of the task.
        prompt_type: Whether the texts are queries or documents; None for neither.
    """

    task: Any
    prompt_type: PromptType | None

    @property
    def role(self) -> str:
        """`query`, or `document` for everything else."""
        return "query" if self.prompt_type == PromptType.query else "document"

    def choose(self, prompts: Prompts) -> str | None:
        """The prompt for these texts, with the task's instruction in it.

        A key without `document` is never used for the documents of a retrieval: prompts are for queries by default.

        Args:
            prompts: By mteb's keys. The most specific key is used, in mteb's order: `<task>-query`, `<task>`,
                `<task type>-query`, `<task type>`, `query`.

        Returns:
            The prompt; None where no key matches.
        """
        # mteb falls back from `<task>-document` to `<task>`, whose prompt is meant for queries.
        if self.prompt_type == PromptType.document:
            prompts = {key: text for key, text in prompts.items() if key.endswith(PromptType.document.value)}
        key = get_prompt_name(dict(prompts), self.task, self.prompt_type)
        if key is None or INSTRUCTION not in prompts[key]:
            return prompts.get(key or "")
        # mteb prefers the prompts of the encoder that it asks; one without prompts gives the task's instruction.
        instruction = AbsEncoder.get_instruction(_NoPrompts(), self.task, self.prompt_type)
        return prompts[key].replace(INSTRUCTION, instruction)


@dataclass(frozen=True)
class EncoderIdentity:
    """How a model turned texts into vectors: what a score depends on in addition to the task and the prompts.

    Attributes:
        name: `student`, the kind of a teacher, or `concatenation`.
        weights: Digest of encoder and head, or of the teachers' fingerprints.
        dtype: Of the encoder.
        max_length: Tokens; None where there is no limit.
    """

    name: str
    weights: str
    dtype: str | None = None
    max_length: int | None = None


class Embedder(Protocol):
    """A model as `MtebEncoder` uses it."""

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""

    def identity(self) -> EncoderIdentity:
        """What the vectors depend on in addition to texts and prompts."""

    def prompt(self, request: EncodeRequest) -> str | None:
        """The prompt before the texts; None for the model's own default."""

    def embed(self, texts: Sequence[str], request: EncodeRequest) -> np.ndarray:
        """Vectors of texts.

        Args:
            texts: Without prompts.
            request: What mteb needs the vectors for, which decides the prompt.

        Returns:
            `[len(texts), dim]`, in the order of the texts.
        """


class MeasuredEmbedder(Embedder, Protocol):
    """A model whose size and speed are measured with its scores."""

    def parameters(self) -> int:
        """Number of parameters."""

    def texts_per_second(self, texts: list[str]) -> float:
        """Its speed on some texts."""


class MtebEncoder(AbsEncoder):
    """An embedder as an encoder of mteb.

    Args:
        embedder: The model.
        name: Of the model.
        revision: Digest of everything that decides its vectors.
    """

    def __init__(self, embedder: Embedder, name: str, revision: str) -> None:
        self._embedder = embedder
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": f"stella/{name}",
                "revision": revision,
                "embed_dim": embedder.dim,
                # Vectors have unit length, so cosine and dot product agree.
                "similarity_fn_name": ScoringFunction.COSINE,
                "modalities": ["text"],
                # mteb's results name the experiment by it: it tells the dimensions of one model apart.
                "experiment_kwargs": {"truncate_dim": embedder.dim},
            }
        )

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Vectors `[n, dim]` float32 of the texts of mteb's loader.

        Args:
            inputs: Batches, each with a list of texts under `text`.
            task_metadata: mteb's, of the task that is evaluated.
            hf_split: Not used.
            hf_subset: Not used.
            prompt_type: Whether the texts are queries or documents; None for neither.
            **kwargs: mteb's other arguments, not used.

        Returns:
            Vectors in the order of the texts, all batches together.
        """
        # The prompt depends on the task and the side only. mteb's batch size is not used: batches have a token budget.
        del hf_split, hf_subset, kwargs
        texts = [text for batch in inputs for text in batch["text"]]
        # mteb's evaluators compute in the dtype that they get; float16 would lose digits of the cosines.
        return self._embedder.embed(texts, EncodeRequest(task_metadata, prompt_type)).astype(np.float32)


class _NoPrompts(AbsEncoder):
    """An encoder without prompts of its own, for which mteb returns the task's instruction."""

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


class PooledStates:
    """A student's pooled states by text, kept in the store; every head projects the same ones.

    Args:
        student: Whose encoder computes the states that are not stored yet, from now on in float32, as in the libraries
            that people load a release with.
        workspace: Where they are stored.
    """

    def __init__(self, student: DenseStudent, workspace: Workspace) -> None:
        student.dtype = "float32"
        self.student = student
        # The heads are not part of it: all heads, and stages that freeze the encoder, share the pooled states.
        self.fingerprint = encoder_digest(student)
        mend_table(workspace, STATES + self.fingerprint)  # what is damaged is computed again
        self._table = StateTable(workspace, self.fingerprint, student.hidden)

    def get(self, texts: Sequence[str]) -> np.ndarray:
        """Pooled states `[len(texts), H]` float16."""
        return fill_and_fetch(self._table, texts, self.student.encode_pooled)


class StudentEmbedder:
    """One head of a student.

    Args:
        states: Of the student.
        head: Name of the head; None for the pooled states, normalised.
        prompts: For tasks.
    """

    def __init__(self, states: PooledStates, head: str | None, prompts: Prompts) -> None:
        student = states.student
        self.dim = student.hidden if head is None else student.dimensions[head]
        self._states = states
        self._head = head
        self._prompts = prompts

    @cached_property
    def _weights(self) -> str:
        head = None if self._head is None else head_digest(self._states.student, self._head)
        # A head without weights of its own is cut from the full one, so the dimension has to be in the digest, too.
        return digest([self._states.fingerprint, head, self.dim])

    def identity(self) -> EncoderIdentity:
        """Digest of encoder, tokenizer, pooling and head."""
        student = self._states.student
        return EncoderIdentity("student", self._weights, student.dtype, student.backbone.max_seq_length)

    def prompt(self, request: EncodeRequest) -> str:
        """The recipe's for the task; a student has no default."""
        return request.choose(self._prompts) or ""

    def embed(self, texts: Sequence[str], request: EncodeRequest | None) -> np.ndarray:
        """Unit vectors of texts.

        Args:
            texts: Without prompts.
            request: Decides the prompt; None for texts without a prompt.

        Returns:
            `[len(texts), dim]` float32, in the order of the texts.
        """
        import torch

        prompt = self.prompt(request) if request else ""
        # The prompt is part of the text here, so equal prompted texts of different tasks share a stored state.
        pooled = self._states.get([prompt + text for text in texts]).astype(np.float32)
        # Stored states are float16; the heads have float32 weights.
        pooled_BH = torch.from_numpy(pooled).to(self._states.student.device)
        if self._head is None:
            return torch.nn.functional.normalize(pooled_BH, dim=1).cpu().numpy()
        with torch.inference_mode():
            return self._states.student.project(pooled_BH, self._head).cpu().numpy()

    def with_prompts(self, prompts: Prompts, dimension: int) -> StudentEmbedder:
        """The same student with other prompts, at the head of a dimension.

        Args:
            prompts: For tasks, by mteb's keys.
            dimension: Of one of the student's heads.

        Raises:
            StudentError: No head has this dimension.
        """
        return StudentEmbedder(self._states, self._states.student.head_of(dimension), prompts)

    def parameters(self) -> int:
        """Number of parameters of the encoder and the head."""
        student = self._states.student
        # Only the rows of the last layer that give its vectors are counted.
        head = () if self._head is None else student.weights(self._head).parameters()
        return sum(p.numel() for p in (*student.backbone.parameters(), *head))

    def texts_per_second(self, texts: list[str]) -> float:
        """Speed of the encoder; the cost of a head is negligible."""
        return measure_speed(self._states.student.encode_pooled, texts)
