"""Teachers, their concatenation and students as mteb encoders. A text is encoded once, whatever asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import PromptType

from stella_assets.teachers.concatenate import concatenate
from stella_assets.teachers.encode import TeacherVectors
from stella_assets.training.student import Student


class Embedder(Protocol):
    """What the encoder asks: vectors of texts that are queries or documents."""

    dim: int

    def embed(self, texts: Sequence[str], role: str) -> np.ndarray:
        """Vectors `[len(texts), dim]`."""


class MtebEncoder(AbsEncoder):
    """An embedder for mteb, with an identity of its own: name, weights' digest, dimension."""

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
        del task_metadata, hf_split, hf_subset, kwargs
        texts = [text for batch in inputs for text in batch["text"]]
        role = "query" if prompt_type == PromptType.query else "document"
        return self._embedder.embed(texts, role).astype(np.float32)


class ConcatenationEmbedder:
    """The concatenation of several teachers: what the student learns from."""

    def __init__(self, teachers: Sequence[TeacherVectors]) -> None:
        self._teachers = teachers
        self._weights = [vectors.teacher.weight for vectors in teachers]
        self.dim = sum(vectors.dim for vectors in teachers)

    def embed(self, texts: Sequence[str], role: str) -> np.ndarray:
        """Unit vectors `[len(texts), dim]` float32."""
        return concatenate([vectors.embed(texts, role) for vectors in self._teachers], self._weights)


class PooledStates:
    """A student's pooled states by text; every head and dimension projects the same ones."""

    def __init__(self, student: Student, query_prompt: str) -> None:
        self.student = student
        self._prompts = {"query": query_prompt, "document": ""}
        self._states: dict[str, np.ndarray] = {}

    def get(self, texts: Sequence[str], role: str) -> np.ndarray:
        """Pooled states `[len(texts), H]` float32."""
        prompted = [self._prompts[role] + text for text in texts]
        missing = sorted(set(prompted) - self._states.keys())
        if missing:
            self._states |= dict(zip(missing, self.student.encode_pooled(missing), strict=True))
        return np.stack([self._states[text] for text in prompted])


class StudentEmbedder:
    """One head of a student, or its pooled states when it has none."""

    def __init__(self, states: PooledStates, head: int | None) -> None:
        self._states = states
        self._head = head
        self.dim = head or states.student.hidden

    def embed(self, texts: Sequence[str], role: str) -> np.ndarray:
        """Unit vectors `[len(texts), dim]` float32."""
        import torch

        pooled_BH = torch.from_numpy(self._states.get(texts, role)).to(self._states.student.device)
        if self._head is None:
            return torch.nn.functional.normalize(pooled_BH, dim=1).cpu().numpy()
        with torch.inference_mode():
            return self._states.student.project(pooled_BH, self._head).cpu().numpy()
