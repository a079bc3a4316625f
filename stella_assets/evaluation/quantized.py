"""A student whose vectors are stored in fewer bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from stella_assets.storage.canonical import digest

if TYPE_CHECKING:
    from stella_assets.evaluation.encoders import EncodeRequest, EncoderIdentity, StudentEmbedder

Precision = Literal["int8", "binary"]
BITS = {"float32": 32, "int8": 8, "binary": 1}
"""Bits of one dimension."""


class QuantizedEmbedder:
    """A student with vectors quantized as sentence-transformers does it.

    int8 has a range per dimension, calibrated on texts of the corpus; binary keeps the sign, so that cosine is Hamming
    distance. Vectors are returned as the floats that the stored ones represent.

    Args:
        student: At one head.
        precision: How vectors are stored.
        calibration: Texts whose vectors give the ranges.

    References:
        Shakir, Aarsen & Lee, "Binary and Scalar Embedding Quantization for Significantly Faster & Cheaper Retrieval",
        Hugging Face blog, 2024.
    """

    def __init__(self, student: StudentEmbedder, precision: Precision, calibration: list[str]) -> None:
        self._student = student
        self._precision = precision
        self._calibration = calibration
        self.dim = student.dim

    @cached_property
    def _ranges(self) -> np.ndarray:
        """`[2, dim]`: lowest and highest entry of each dimension."""
        # One set of ranges for all texts, as an index has: the library's default is a range per call.
        vectors = self._student.embed(self._calibration, None)
        return np.stack([vectors.min(axis=0), vectors.max(axis=0)])

    def identity(self) -> EncoderIdentity:
        """The student's, the precision, and the texts that give int8 its ranges."""
        identity = self._student.identity()
        named = replace(identity, name=f"{identity.name}, {self._precision}")
        if self._precision == "binary":  # signs need no ranges
            return named
        return replace(named, weights=digest([named.weights, self._calibration]))

    def prompt(self, request: EncodeRequest) -> str | None:
        """The student's."""
        return self._student.prompt(request)

    def embed(self, texts: Sequence[str], request: EncodeRequest | None) -> np.ndarray:
        """Vectors of texts, after quantization and back.

        Args:
            texts: Without prompts.
            request: Decides the prompt; None for texts without a prompt.

        Returns:
            `[len(texts), dim]` float32, not of unit length.
        """
        from sentence_transformers.quantization import quantize_embeddings

        vectors = self._student.embed(texts, request)
        if self._precision == "binary":
            # Bits are scored as -1 and 1: their dot product is `dim - 2 * Hamming distance`, so both rank alike.
            packed = quantize_embeddings(vectors, "ubinary")
            # Packing pads to whole bytes; the padding is cut off again.
            return 2.0 * np.unpackbits(np.asarray(packed), axis=1)[:, : self.dim].astype(np.float32) - 1
        stored = np.asarray(quantize_embeddings(vectors, "int8", ranges=self._ranges)).astype(np.float32)
        low, high = self._ranges
        return low + (stored + 128.5) * (high - low) / 255  # the middle of the interval that a stored value stands for
