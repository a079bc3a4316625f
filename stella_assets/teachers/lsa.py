"""Latent semantic analysis as a teacher: what words say, beside what a neural teacher says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stella_assets.core.manifest import digest, file_digest
from stella_assets.recipe import LsaTeacher

VOCABULARY = "vocabulary.json"
WEIGHTS = "lsa.safetensors"


class TooFewTermsError(ValueError):
    """The texts have fewer distinct terms than the teacher should have dimensions."""


def _vectorizer(**fitted: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(sublinear_tf=True, stop_words="english", dtype=np.float32, **fitted)


def fit_lsa(spec: LsaTeacher, texts: Sequence[str], folder: Path) -> None:
    """Fit TF-IDF and a truncated SVD (Deerwester et al., 1990) and write them as JSON and safetensors.

    Args:
        spec: Dimensions, size of the vocabulary, and the seed of the randomised SVD (Halko et al., 2011).
        texts: Training texts.
        folder: Where `vocabulary.json` and `lsa.safetensors` go.

    Raises:
        TooFewTermsError: There are fewer terms or texts than dimensions.
    """
    from safetensors.numpy import save_file
    from sklearn.decomposition import TruncatedSVD

    vectorizer = _vectorizer(max_features=spec.max_features, min_df=2 if len(texts) > 100 else 1)
    try:
        counts = vectorizer.fit_transform(texts)
    except ValueError as error:  # scikit-learn's own: no terms at all
        raise TooFewTermsError(f"teacher {spec.name!r}: {error}. Take more texts, or remove the teacher.") from None
    if min(counts.shape) <= spec.dim:
        raise TooFewTermsError(
            f"teacher {spec.name!r}: dim {spec.dim} needs more than {spec.dim} training texts and terms; the corpus "
            f"has {counts.shape[0]} and {counts.shape[1]}. Lower `dim`, or take more texts."
        )
    svd = TruncatedSVD(spec.dim, random_state=spec.seed).fit(counts)
    components = svd.components_.astype(np.float32)
    centre = np.asarray(counts.mean(axis=0), dtype=np.float32).ravel() @ components.T
    terms = {term: int(column) for term, column in vectorizer.vocabulary_.items()}
    (folder / VOCABULARY).write_text(json.dumps(terms, sort_keys=True, ensure_ascii=False), encoding="utf-8")
    save_file(
        {"idf": vectorizer.idf_.astype(np.float32), "components": np.ascontiguousarray(components), "centre": centre},
        folder / WEIGHTS,
    )


class LsaModel:
    """A fitted teacher, read from its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _weights(self) -> dict[str, np.ndarray]:
        from safetensors.numpy import load_file

        return load_file(self.folder / WEIGHTS)

    @cached_property
    def _fitted(self) -> Any:
        vectorizer = _vectorizer(vocabulary=json.loads((self.folder / VOCABULARY).read_text(encoding="utf-8")))
        vectorizer.idf_ = self._weights["idf"]
        return vectorizer

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return int(self._weights["components"].shape[0])

    def describe(self, role: str) -> dict[str, Any]:
        """What the vectors depend on: the fit. There are no prompts, so every role has the same."""
        del role
        files = [file_digest(self.folder / name) for name in (VOCABULARY, WEIGHTS)]
        return {"kind": "lsa", "weights": digest(files), "dim": self.dim, "engine": "scikit-learn", "normalised": True}

    def fingerprint(self, role: str) -> str:
        """Names the fit."""
        return digest(self.describe(role))[:16]

    def encode(self, texts: list[str], role: str) -> np.ndarray:
        """Unit-norm vectors `[len(texts), dim]` float32; a text of unknown terms gets the corpus' mean direction."""
        del role
        projected = self._fitted.transform(texts) @ self._weights["components"].T
        vectors = np.asarray(projected, dtype=np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = np.where(norms > 1e-6, vectors, self._weights["centre"])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def parameters(self) -> int:
        """Entries of its matrices."""
        return sum(matrix.size for matrix in self._weights.values())
