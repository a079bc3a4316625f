"""Teachers, their concatenation and students as mteb encoders. A text is encoded once, whatever asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from mteb.models.abs_encoder import AbsEncoder, get_prompt_name
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import PromptType
from storage.workspace import Workspace

from stella_assets.core.devices import resolve_dtype
from stella_assets.core.manifest import digest
from stella_assets.students.dense import Student
from stella_assets.teachers.concatenate import concatenate
from stella_assets.teachers.encode import TeacherVectors, fill_and_fetch, measure_speed
from stella_assets.teachers.sentence_transformer import AS_PROMPT
from storage.vectors import StateTable

INSTRUCTION = "{instruction}"
Prompts = Mapping[str, str]
"""Prompts by mteb's keys: `<task>-query`, `<task>`, `<task type>-query`, `<task type>`, `query`, or with `document`."""


@dataclass(frozen=True)
class EncodeRequest:
    """Whose texts mteb wants vectors of: a task's, and whether they are queries, documents or neither."""

    task: Any
    prompt_type: PromptType | None

    @property
    def role(self) -> str:
        """`query`, or `document` for everything else."""
        return "query" if self.prompt_type == PromptType.query else "document"

    def choose(self, prompts: Prompts) -> str | None:
        """The prompt for these texts, with the task's instruction in it.

        A key without `document` never reaches the documents of a retrieval: prompts are for queries unless said.
        """
        if self.prompt_type == PromptType.document:
            prompts = {key: text for key, text in prompts.items() if key.endswith(PromptType.document.value)}
        key = get_prompt_name(dict(prompts), self.task, self.prompt_type)
        if key is None or INSTRUCTION not in prompts[key]:
            return prompts.get(key or "")
        instruction = AbsEncoder.get_instruction(_NoPrompts(), self.task, self.prompt_type)
        return prompts[key].replace(INSTRUCTION, instruction)


@dataclass(frozen=True)
class EncoderIdentity:
    """How a model turned texts into vectors: what a score depends on, beside the task and the prompts.

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
    """What the encoder asks: vectors of texts."""

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""

    def identity(self) -> EncoderIdentity:
        """What the vectors depend on, beside texts and prompts."""

    def prompt(self, request: EncodeRequest) -> str | None:
        """What is put before the texts; None for the model's own default."""

    def embed(self, texts: Sequence[str], request: EncodeRequest) -> np.ndarray:
        """Vectors `[len(texts), dim]`."""


class MtebEncoder(AbsEncoder):
    """An embedder for mteb, with an identity of its own: name, digest of all that decides its vectors, dimension."""

    def __init__(self, embedder: Embedder, name: str, revision: str) -> None:
        self._embedder = embedder
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": f"stella/{name}",
                "revision": revision,
                "embed_dim": embedder.dim,
                "similarity_fn_name": ScoringFunction.COSINE,
                "modalities": ["text"],
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
        """Vectors `[n, dim]` float32 of the texts that mteb's loader gives."""
        del hf_split, hf_subset, kwargs
        texts = [text for batch in inputs for text in batch["text"]]
        return self._embedder.embed(texts, EncodeRequest(task_metadata, prompt_type)).astype(np.float32)


class _NoPrompts(AbsEncoder):
    """An encoder without prompts of its own: mteb then gives the task's instruction."""

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


class TeacherEmbedder:
    """A teacher through its store of vectors."""

    def __init__(self, vectors: TeacherVectors, prompts: Prompts) -> None:
        self.vectors = vectors
        self.dim = vectors.dim
        self._prompts = prompts

    def identity(self) -> EncoderIdentity:
        """The fingerprints of both roles."""
        spec, fingerprints = self.vectors.teacher, self.vectors.fingerprints
        dtype = resolve_dtype(spec.dtype) if hasattr(spec, "dtype") else None
        weights = digest([fingerprints["query"], fingerprints["document"]])
        return EncoderIdentity(spec.kind, weights, dtype, getattr(spec, "max_length", None))

    def prompt(self, request: EncodeRequest) -> str | None:
        """The recipe's for the task, if it has one; else the teacher's own for the role."""
        return request.choose(self._prompts)

    def embed(self, texts: Sequence[str], request: EncodeRequest) -> np.ndarray:
        """Unit vectors `[len(texts), dim]` float16."""
        prompt = self.prompt(request)
        return self.vectors.embed(texts, request.role if prompt is None else AS_PROMPT + prompt)


class ConcatenationEmbedder:
    """The concatenation of several teachers, each behind its own prompts: what the student learns from."""

    def __init__(self, teachers: Sequence[TeacherEmbedder]) -> None:
        self._teachers = teachers
        self._weights = [teacher.vectors.teacher.weight for teacher in teachers]
        self.dim = sum(teacher.dim for teacher in teachers)

    def identity(self) -> EncoderIdentity:
        """The loaders of all teachers, and their weights."""
        return EncoderIdentity("concatenation", digest([[t.identity().weights for t in self._teachers], self._weights]))

    def prompt(self, request: EncodeRequest) -> str | None:
        """All teachers' prompts; for the record, as each puts its own before the texts."""
        chosen = [teacher.prompt(request) for teacher in self._teachers]
        return None if chosen == [None] * len(chosen) else " | ".join(prompt or "" for prompt in chosen)

    def embed(self, texts: Sequence[str], request: EncodeRequest) -> np.ndarray:
        """Unit vectors `[len(texts), dim]` float32."""
        return concatenate([teacher.embed(texts, request) for teacher in self._teachers], self._weights)


class PooledStates:
    """A student's pooled states by text, kept in the store; every head and dimension projects the same ones."""

    def __init__(self, student: Student, workspace: Workspace) -> None:
        self.student = student
        self.fingerprint = student.encoder_digest()
        about = {"dtype": student.dtype, "pooling": student.pooling, "max_length": student.backbone.max_seq_length}
        self._table = StateTable(workspace, self.fingerprint, student.hidden, about)

    def get(self, texts: Sequence[str]) -> np.ndarray:
        """Pooled states `[len(texts), H]` float16."""
        return fill_and_fetch(self._table, texts, self.student.encode_pooled)


class StudentEmbedder:
    """One head of a student, or its pooled states when it has none."""

    def __init__(self, states: PooledStates, head: int | None, prompts: Prompts) -> None:
        self.dim = head or states.student.hidden
        self._states = states
        self._head = head
        self._prompts = prompts

    @cached_property
    def _weights(self) -> str:
        head = self._states.student.head_digest(self._head) if self._head else None
        return digest([self._states.fingerprint, head, self.dim])

    def identity(self) -> EncoderIdentity:
        """Digest of encoder, tokenizer, pooling and head."""
        student = self._states.student
        return EncoderIdentity("student", self._weights, student.dtype, student.backbone.max_seq_length)

    def prompt(self, request: EncodeRequest) -> str:
        """The recipe's for the task; a student has none of its own."""
        return request.choose(self._prompts) or ""

    def embed(self, texts: Sequence[str], request: EncodeRequest | None) -> np.ndarray:
        """Unit vectors `[len(texts), dim]` float32; without a request, of texts as they are."""
        import torch

        prompt = self.prompt(request) if request else ""
        pooled = self._states.get([prompt + text for text in texts]).astype(np.float32)
        pooled_BH = torch.from_numpy(pooled).to(self._states.student.device)
        if self._head is None:
            return torch.nn.functional.normalize(pooled_BH, dim=1).cpu().numpy()
        with torch.inference_mode():
            return self._states.student.project(pooled_BH, self._head).cpu().numpy()

    def parameters(self) -> int:
        """Of encoder and head."""
        student = self._states.student
        head = student.head(self._head).first(self._head).parameters() if self._head else ()
        return sum(p.numel() for p in (*student.backbone.parameters(), *head))

    def texts_per_second(self, texts: list[str]) -> float:
        """How fast texts are pooled; a head costs little."""
        return measure_speed(self._states.student.encode_pooled, texts)
