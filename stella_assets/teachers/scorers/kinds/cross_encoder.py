"""The scorer kind `cross_encoder`: a published reranker that runs here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from stella_assets.core.config import ModelSource, Positive
from stella_assets.core.devices import Compute, Dtype, DtypeChoice
from stella_assets.core.models import (
    ModelFiles,
    check_code,
    check_files,
    encoder_format,
    explained_code,
    load_cross_encoder,
    load_tokenizer,
    model_digest,
    model_folder,
)
from stella_assets.teachers.scorers.base import PAIR_SCORERS, Scoring
from stella_assets.teachers.scorers.local import LocalScorer


@PAIR_SCORERS.register
class CrossEncoderScorer(LocalScorer, ModelSource):
    """A published cross-encoder, which reads both texts together. The score is its logit.

    References:
        Nogueira and Cho 2019, Passage Re-ranking with BERT, arXiv 1901.04085.
    """

    icons: ClassVar[frozenset[str]] = frozenset({"huggingface"})

    kind: Literal["cross_encoder"]
    licence: str = Field(description="SPDX expression or plain words; the model card lists what it asks")
    max_length: Positive = Field(512, le=1_048_576, description="tokens of both texts together; the longer one is cut")
    batch_size: Positive = Field(32, le=16_384, description="pairs that go through the model at once")
    dtype: DtypeChoice = Field(
        "auto", description="number format; `auto` is what the device and the model's code compute in"
    )

    def identity_settings(self) -> dict[str, Any]:
        """All settings but those that its scores do not depend on."""
        return self.settings("model", "revision", "licence", "batch_size")

    def external_versions(self, compute: Compute) -> Mapping[str, str]:
        """Digest of the weights, and the number format."""
        return {"model": model_digest(self), "dtype": self._known_format(compute)}

    def _known_format(self, compute: Compute) -> Dtype:
        """The number format as far as it is known without a download."""
        return compute.dtype(self.dtype) if self.on_hub else encoder_format(self, self.dtype, compute)

    def check(self) -> None:
        """Make sure that its files are whole, its code is trusted and pinned, and there is a tokenizer."""
        if self.on_hub:
            return
        check_code(ModelFiles(self))
        check_files(model_folder(self))
        encoder_format(self, self.dtype, Compute())
        load_tokenizer(self)

    def published_model(self) -> ModelSource:
        """Itself."""
        return self

    def describe(self, scoring: Scoring) -> dict[str, Any]:
        """Weights, length and number format."""
        return {
            "kind": self.kind,
            "model": self.model,
            "revision": self.revision if self.on_hub else None,
            "weights": model_digest(self),
            "max_length": self.max_length,
            "dtype": encoder_format(self, self.dtype, scoring.compute),
            "engine": "sentence-transformers",
        }

    def open(self, scoring: Scoring) -> LoadedCrossEncoder:
        """The model; see `load_cross_encoder`."""
        return LoadedCrossEncoder(self, scoring.compute)


class LoadedCrossEncoder:
    """A cross-encoder in memory."""

    def __init__(self, config: CrossEncoderScorer, compute: Compute) -> None:
        self._config, self._compute = config, compute

    @cached_property
    def model(self) -> Any:
        """The `CrossEncoder` of sentence-transformers."""
        config = self._config
        dtype = encoder_format(config, config.dtype, self._compute)
        model, _ = load_cross_encoder(config, dtype=dtype, device=str(self._compute.device))
        # Never above the model's own limit: positions past it have no embedding.
        limit = model.max_seq_length
        model.max_seq_length = min(config.max_length, limit) if limit else config.max_length
        return model

    def score_pairs(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Logits: those of good and of bad pairs lie apart, where their probabilities round to 1 and 0."""
        import torch

        pairs = list(zip(queries, documents, strict=True))
        with explained_code(self._config):
            found = self.model.predict(
                pairs, batch_size=self._config.batch_size, activation_fn=torch.nn.Identity(), show_progress_bar=False
            )
        return np.asarray(found, dtype=np.float32)
