"""Teachers and their concatenation as models that mteb scores, through their stored vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stella_assets.evaluation.encoders import EncodeRequest, EncoderIdentity
from stella_assets.storage.canonical import digest
from stella_assets.teachers.kinds.base import prompt_role
from stella_assets.teachers.snapshot import Layout
from stella_assets.teachers.teacher_vectors import TeacherVectors

if TYPE_CHECKING:
    from stella_assets.core.devices import Compute


class TeacherEmbedder:
    """A teacher and its stored vectors.

    Args:
        vectors: Of the teacher.
        compute: What missing vectors are computed with.
    """

    def __init__(self, vectors: TeacherVectors, compute: Compute) -> None:
        self.vectors = vectors
        self.dim = vectors.dim
        self._compute = compute
        self._prompts = vectors.teacher.task_prompts()

    def identity(self) -> EncoderIdentity:
        """The fingerprints of both roles."""
        teacher, fingerprints = self.vectors.teacher, self.vectors.fingerprints
        limits = teacher.encoder_limits(self._compute)
        # Queries and documents may have other prompts, and so tables of their own.
        weights = digest([fingerprints["query"], fingerprints["document"]])
        return EncoderIdentity(teacher.kind, weights, limits.dtype, limits.max_length)

    def prompt(self, request: EncodeRequest) -> str | None:
        """The recipe's for the task; None for the teacher's own for the role."""
        return request.choose(self._prompts)

    def embed(self, texts: Sequence[str], request: EncodeRequest) -> np.ndarray:
        """Unit vectors of texts: stored ones are read, others are computed and stored.

        Args:
            texts: Without prompts.
            request: Decides the prompt.

        Returns:
            `[len(texts), dim]` float16, in the order of the texts.
        """
        prompt = self.prompt(request)
        # A prompt of the recipe has a role of its own, so its vectors are stored apart from those of the corpus.
        return self.vectors.embed(texts, request.role if prompt is None else prompt_role(prompt), self._compute)


class ConcatenationEmbedder:
    """The concatenation of several teachers, each with its own prompts: what the student learns from.

    Args:
        teachers: In the order of the concatenation.
        layout: Of the same teachers: their weights, and the means that are taken from the vectors of any text.

    References:
        Zhang et al., "Jasper and Stella: distillation of SOTA embedding models", arXiv:2412.19048.
    """

    def __init__(self, teachers: Sequence[TeacherEmbedder], layout: Layout) -> None:
        self._teachers = teachers
        self._layout = layout
        self.dim = layout.dim

    def identity(self) -> EncoderIdentity:
        """The fingerprints of all teachers, their weights, and the means of those that are centred."""
        layout = self._layout
        means = {name: mean.tolist() for name in layout.teachers if (mean := layout.mean_of(name)) is not None}
        parts = [[t.identity().weights for t in self._teachers], list(layout.weights), *([means] if means else [])]
        return EncoderIdentity("concatenation", digest(parts))

    def prompt(self, request: EncodeRequest) -> str | None:
        """All teachers' prompts, for the record; each teacher uses its own."""
        chosen = [teacher.prompt(request) for teacher in self._teachers]
        # None only where every teacher uses the default of its role.
        return None if chosen == [None] * len(chosen) else " | ".join(prompt or "" for prompt in chosen)

    def embed(self, texts: Sequence[str], request: EncodeRequest) -> np.ndarray:
        """Unit vectors `[len(texts), dim]` float32."""
        vectors = [teacher.embed(texts, request) for teacher in self._teachers]
        return self._layout.targets(np.concatenate(vectors, axis=1))
