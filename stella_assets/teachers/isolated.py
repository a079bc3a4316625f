"""A teacher's model in a Python environment of its own.

Shapes: N texts, D dimensions of a vector.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stella_assets.core.devices import Compute, best_device_name
from stella_assets.core.environments import EnvironmentConfig
from stella_assets.core.models import ModelFiles, check_code, model_digest, model_folder
from stella_assets.core.progress import progress_bar
from stella_assets.teachers.encoder_process import EncoderError, EncoderProcess
from stella_assets.teachers.kinds.base import EmbeddingKind, Role, fingerprint_of, prompt_of

if TYPE_CHECKING:
    from stella_assets.teachers.kinds.sentence_transformers import SentenceTransformersTeacher

TEXTS_AT_ONCE = 4096
"""Between two movements of the progress bar; their vectors are one file on the way."""
OTHER_FORMATS = ("onnx/*", "openvino/*", "*.onnx", "*.h5", "*.msgpack", "*.ot", "*.gguf")
"""Of weights that the encoder does not read, and that need not be downloaded."""


class IsolatedModel:
    """Encodes as `SentenceTransformer.encode` does in the teacher's environment, in batches of similar length.

    The encoder computes in the configured number format; pooling, Dense layers and the norm are always float32.

    Args:
        config: The teacher's settings.
        environment: What its environment consists of.
        compute: Device, threads, and where environments are.
    """

    embedding: EmbeddingKind = "vector"

    def __init__(self, config: SentenceTransformersTeacher, environment: EnvironmentConfig, compute: Compute) -> None:
        self.config = config
        self.dtype = compute.dtype(config.dtype)
        self._environment, self._compute = environment, compute

    @cached_property
    def _encoder(self) -> EncoderProcess:
        """The process with the loaded model."""
        owner, environments = f"teacher {self.config.name!r}", self._compute.environments
        environment = environments.require(self._environment, owner)
        return EncoderProcess(environment, self.settings(), dict(environments.variables), owner)

    def settings(self) -> dict[str, Any]:
        """What the encoder is told of the model."""
        return {
            "model": str(_local_folder(self.config)),
            "trust_remote_code": self.config.trust_remote_code,
            "model_kwargs": dict(self.config.model_kwargs),
            "tokenizer_kwargs": dict(self.config.tokenizer_kwargs),
            "config_kwargs": dict(self.config.config_kwargs),
            "device": self._compute.device_name or best_device_name(),
            "dtype": self.dtype,
            "threads": self._compute.threads,
            "dense_folder": self.config.dense_folder,
            "max_length": self.config.max_length,
            "max_batch_tokens": self.config.max_batch_tokens,
        }

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return int(self._encoder.description["dim"])

    def describe(self, role: Role) -> dict[str, Any]:
        """Everything that a vector depends on in addition to the text; `environment` has the versions of packages."""
        return {
            "kind": self.config.kind,
            "model": self.config.model,
            "revision": self.config.revision if self.config.on_hub else None,
            "weights": model_digest(self.config),
            "prompt": self._prompt(role),
            "pooling": self._encoder.description["pooling"],
            "dense_folder": self.config.dense_folder,
            "max_length": self.config.max_length,
            "dim": self.dim,
            "dtype": self.dtype,
            "engine": "sentence-transformers",
            "normalised": True,
            "environment": self._environment.described(),
        }

    def fingerprint(self, role: Role) -> str:
        """Names what `describe` says, without the model's place."""
        return fingerprint_of(self.describe(role))

    def encode(self, texts: list[str], role: Role) -> np.ndarray:
        """Unit-norm vectors `[N, D]` float32, in the order of `texts`.

        Args:
            texts: Of any length; tokens past `max_length` are cut off.
            role: Decides the prompt.

        Raises:
            EncoderError: The model failed.
        """
        vectors_ND = np.empty((len(texts), self.dim), dtype=np.float32)
        with progress_bar(len(texts), self.config.name, "texts") as bar:
            for start in range(0, len(texts), TEXTS_AT_ONCE):
                part = texts[start : start + TEXTS_AT_ONCE]
                vectors_ND[start : start + len(part)] = self._encode(part, self._prompt(role))
                bar.update(len(part))
        return vectors_ND

    def _encode(self, texts: list[str], prompt: str) -> np.ndarray:
        try:
            return self._encoder.encode(texts, prompt)
        except EncoderError:
            # The process is closed; the next call starts another one.
            del self._encoder
            raise

    def parameters(self) -> int:
        """Number of parameters."""
        return int(self._encoder.description["parameters"])

    def _prompt(self, role: Role) -> str:
        """The recipe's prompt of the role, else the model's own default, as `SentenceTransformer.encode` takes it."""
        if (given := prompt_of(role)) is not None:
            return given
        own = self.config.prompts.get(role)  # type: ignore[call-overload]
        return str(own if own is not None else self._encoder.description["default_prompt"])


def _local_folder(config: SentenceTransformersTeacher) -> Path:
    """Where the model's files are. A published model is downloaded here, so that the encoder needs no token."""
    check_code(ModelFiles(config))
    if not config.on_hub:
        return model_folder(config)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(config.model, revision=config.revision, ignore_patterns=list(OTHER_FORMATS)))
