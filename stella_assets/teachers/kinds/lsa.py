"""The teacher kind `lsa`: latent semantic analysis, what words say in addition to a neural teacher."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from stella_assets.core.config import Positive, Seed
from stella_assets.core.devices import Compute
from stella_assets.core.errors import UserError
from stella_assets.storage.canonical import digest
from stella_assets.storage.files import file_digest
from stella_assets.teachers.kinds.base import TEACHERS, EmbeddingKind, Role, TeacherConfig, fingerprint_of

VOCABULARY = "vocabulary.json"
WEIGHTS = "lsa.safetensors"


class TooFewTermsError(UserError):
    """The texts have fewer distinct terms than the teacher should have dimensions."""


MAX_COMPONENTS = 2**28
"""Numbers in the matrix that projects terms onto dimensions: 2 GiB."""


@TEACHERS.register
class LsaTeacher(TeacherConfig):
    """Latent semantic analysis, TF-IDF and a truncated SVD, fitted on the training texts: a lexical teacher.

    References:
        Deerwester et al., 1990, Indexing by latent semantic analysis. Halko et al., 2011, Finding structure with
        randomness, arXiv 0909.4061 (the randomised SVD).

    Example:
        >>> teacher = LsaTeacher(kind="lsa", name="lsa", licence="MIT", dim=64)
        >>> teacher.fit(texts, folder)
        >>> teacher.open(folder, Compute()).encode(texts[:2], "document").shape
        (2, 64)
    """

    icons: ClassVar[frozenset[str]] = frozenset({"scikitlearn"})
    fitted: ClassVar[bool] = True

    kind: Literal["lsa"]
    dim: Positive = Field(256, le=4096, description="dimensions of a vector")
    max_features: Positive = Field(20_000, le=1_000_000, description="terms of the vocabulary, the most frequent ones")
    seed: Seed = Field(0, description="of the randomised SVD")

    @model_validator(mode="after")
    def _require_small_components(self) -> Self:
        if self.dim * self.max_features > MAX_COMPONENTS:
            raise ValueError(
                f"dim {self.dim} of {self.max_features:,} terms are {self.dim * self.max_features:,} numbers, and "
                f"{MAX_COMPONENTS:,} fit in memory; lower one of them"
            )
        return self

    def external_versions(self, compute: Compute) -> Mapping[str, str]:
        """Nothing: it depends on the corpus alone, which is an input of its step."""
        del compute
        return {}

    def check(self) -> int:
        """Its `dim`."""
        return self.dim

    def fit(self, texts: Sequence[str], folder: Path) -> None:
        """Fit TF-IDF and a truncated SVD, and write them as JSON and safetensors.

        Args:
            texts: Training texts, more than `dim`.
            folder: Gets the vocabulary, and `idf` `[terms]`, `components` `[dim, terms]` and `centre` `[dim]`.

        Raises:
            TooFewTermsError: There are not more terms and texts than dimensions.
        """
        from safetensors.numpy import save_file
        from sklearn.decomposition import TruncatedSVD

        # A term of a single text relates no texts; in a tiny corpus most terms are such, so they stay.
        vectorizer = _vectorizer(max_features=self.max_features, min_df=2 if len(texts) > 100 else 1)
        try:
            counts = vectorizer.fit_transform(texts)
        except ValueError as error:  # scikit-learn's own: no terms at all
            raise TooFewTermsError(
                f"teacher {self.name!r}: {error}.", "Take more texts, or remove the teacher."
            ) from None
        # The rank is at most min(texts, terms); with as many dimensions the SVD would reduce nothing.
        if min(counts.shape) <= self.dim:
            raise TooFewTermsError(
                f"teacher {self.name!r}: dim {self.dim} needs more than {self.dim} training texts and terms; the "
                f"corpus has {counts.shape[0]} and {counts.shape[1]}.",
                "Lower `dim`, or take more texts.",
            )
        svd = TruncatedSVD(self.dim, random_state=self.seed).fit(counts)
        components = svd.components_.astype(np.float32)
        # The mean of projections is the projection of the mean, as the projection is linear.
        centre = np.asarray(counts.mean(axis=0), dtype=np.float32).ravel() @ components.T
        terms = {term: int(column) for term, column in vectorizer.vocabulary_.items()}
        # JSON and safetensors, not pickle: opening a teacher must not run code. Sorted, for equal bytes.
        (folder / VOCABULARY).write_text(json.dumps(terms, sort_keys=True, ensure_ascii=False), encoding="utf-8")
        tensors = {"idf": vectorizer.idf_.astype(np.float32), "components": np.ascontiguousarray(components)}
        save_file({**tensors, "centre": centre}, folder / WEIGHTS)

    def open(self, folder: Path, compute: Compute) -> LsaModel:
        """The model that `fit` wrote; it computes on the CPU."""
        del compute
        return LsaModel(folder)

    def known_training_datasets(self) -> set[str]:
        """The empty set: it has seen the corpus alone."""
        return set()


def _vectorizer(**fitted: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    # The options at fitting and at encoding must be the same, so both get them here. Sublinear: 1 + log(count).
    return TfidfVectorizer(sublinear_tf=True, stop_words="english", dtype=np.float32, **fitted)


class LsaModel:
    """A fitted teacher, read from its folder when it is first used."""

    embedding: EmbeddingKind = "vector"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _weights(self) -> dict[str, np.ndarray]:
        from safetensors.numpy import load_file

        tensors: dict[str, np.ndarray] = load_file(self.folder / WEIGHTS)
        return tensors

    @cached_property
    def _vectorizer(self) -> Any:
        vectorizer = _vectorizer(vocabulary=json.loads((self.folder / VOCABULARY).read_text(encoding="utf-8")))
        vectorizer.idf_ = self._weights["idf"]
        return vectorizer

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return int(self._weights["components"].shape[0])

    def describe(self, role: Role) -> dict[str, Any]:
        """What the vectors depend on: the fit. It has no prompts, so all roles are equal."""
        del role
        files = [file_digest(self.folder / name) for name in (VOCABULARY, WEIGHTS)]
        return {"kind": "lsa", "weights": digest(files), "dim": self.dim, "engine": "scikit-learn", "normalised": True}

    def fingerprint(self, role: Role) -> str:
        """Names the fit."""
        return fingerprint_of(self.describe(role))

    def encode(self, texts: list[str], role: Role) -> np.ndarray:
        """Unit-norm vectors `[len(texts), dim]` float32; a text of unknown terms gets the corpus's mean direction."""
        del role
        projected = self._vectorizer.transform(texts) @ self._weights["components"].T
        vectors = np.asarray(projected, dtype=np.float32)
        # A text of unknown or stop words only has no direction, and the store takes unit vectors only.
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = np.where(norms > 1e-6, vectors, self._weights["centre"])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def parameters(self) -> int:
        """Entries of its matrices."""
        return sum(matrix.size for matrix in self._weights.values())
