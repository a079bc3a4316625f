"""A teacher's model in a Python environment of its own.

Shapes: N texts, D dimensions of a vector.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from packaging.version import Version

from stella_assets.core.config import ModelSource
from stella_assets.core.devices import Compute, Dtype, best_device_name
from stella_assets.core.environments import EnvironmentConfig
from stella_assets.core.errors import UserError
from stella_assets.core.models import UNREAD, LoadError, ModelFiles, check_code, check_files, encoder_format, named_code
from stella_assets.core.models.weights import check_names
from stella_assets.core.progress import progress_bar
from stella_assets.teachers.encoder_process import EncoderError, EncoderProcess
from stella_assets.teachers.kinds.base import EmbeddingKind, Role, fingerprint_of

if TYPE_CHECKING:
    from stella_assets.teachers.kinds.sentence_transformers import SentenceTransformersTeacher

OLDEST_PYTHON, OLDEST_LIBRARY = Version("3.9"), Version("2.3")
"""Of Python and of sentence-transformers, in which `encoder_script.py` runs."""
TEXTS_AT_ONCE = 4096
"""Between two movements of the progress bar; their vectors are one file on the way."""


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
        self._environment, self._compute = environment, compute

    @cached_property
    def dtype(self) -> Dtype:
        """Number format of the encoder."""
        return encoder_format(self.config, self.config.dtype, self._compute)

    @cached_property
    def _encoder(self) -> EncoderProcess:
        """The process with the loaded model."""
        owner, environments = f"teacher {self.config.name!r}", self._compute.environments
        environment = environments.require(self._environment, owner)
        check_files(self._folder)
        encoder = EncoderProcess(environment, self.settings(), dict(environments.variables), owner)
        for record in encoder.description["weights"]:
            # Older versions of sentence-transformers never read the pooler.
            check_names(record["kind"], str(self._folder), record, reads_pooler=False)
        return encoder

    @cached_property
    def _folder(self) -> Path:
        """Where the model's files are."""
        return local_folder(self.config)

    @property
    def _code(self) -> dict[str, Path]:
        """Where the code of each repository is that the model's files may name, its own one by its id, too."""
        own = {self.config.model: self._folder} if self.config.on_hub and self.config.trust_remote_code else {}
        return own | other_code(self.config)

    def settings(self) -> dict[str, Any]:
        """What the encoder is told of the model."""
        return {
            "model": str(self._folder),
            "trust_remote_code": self.config.trust_remote_code,
            "code": {name: str(folder) for name, folder in self._code.items()},
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
        pooling = self._encoder.description["pooling"]
        described = self.config.describe(self._prompt(role), pooling, self.dim, self.dtype)
        return described | {"environment": self._environment.described()}

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

    def encode_by_library(self, texts: list[str], role: Role) -> np.ndarray:
        """What `SentenceTransformer.encode` makes of each text alone, `[N, D]` float32: without any padding."""
        return np.concatenate([self._encode([text], self._prompt(role)) for text in texts])

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
        own = self.config.prompt(role)
        return str(own if own is not None else self._encoder.description["default_prompt"])


def check_requirements(config: SentenceTransformersTeacher, environment: EnvironmentConfig) -> None:
    """Make sure that an environment can encode; the installer asks for what its packages need.

    Raises:
        UserError: It cannot, or a requirement is not pinned.
    """
    versions = {each.name: Version(each.version) for each in environment.read()}
    place = f"teacher {config.name!r}: environment"
    if Version(environment.python_version) < OLDEST_PYTHON:
        raise UserError(
            f"{place}: its Python {environment.python_version} is too old.", f"Take {OLDEST_PYTHON} or newer."
        )
    if "sentence-transformers" not in versions:
        raise UserError(
            f"{place}: its requirements lack sentence-transformers, which encodes the texts.",
            f"Add sentence-transformers {OLDEST_LIBRARY} or newer.",
        )
    if (library := versions["sentence-transformers"]) < OLDEST_LIBRARY:
        raise UserError(
            f"{place}: sentence-transformers {library} is too old to load a model as its recipe asks for.",
            f"Take {OLDEST_LIBRARY} or newer.",
        )
    # It builds models without data and leaves buffers unset that their code computes; our own loader restores them.
    if config.trust_remote_code and (library := versions.get("transformers", Version("4"))).major >= 5:
        raise UserError(
            f"{place}: transformers {library} does not run a model's own code as it was published.",
            "Take a version below 5, or remove `environment`.",
        )


def local_folder(source: ModelSource) -> Path:
    """Where a model's files are. A published one is downloaded here, so its encoder needs neither network nor token.

    Raises:
        UserError: There is no such model, it cannot be downloaded, or its code is not trusted or pinned.
    """
    files = ModelFiles(source)
    check_code(files)
    if files.folder is not None:
        return files.folder
    return _download(source.model, source.revision, None, list(UNREAD))


def other_code(source: ModelSource) -> dict[str, Path]:
    """Folders with the code of other repositories that a model's files name, at the pinned commit, by repository.

    It is downloaded, or found in the cache of the hub.

    Raises:
        UserError: It cannot be downloaded, or is not trusted or pinned.
    """
    files = ModelFiles(source)
    check_code(files)
    named = {code.repository for code in named_code(files) if code.repository} - {source.model}
    return {name: _download(name, source.code_revision, ["*.py"], None) for name in sorted(named)}


def _download(repository: str, revision: str | None, only: list[str] | None, without: list[str] | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(repository, revision=revision, allow_patterns=only, ignore_patterns=without)
        return Path(found)
    except OSError as error:
        raise LoadError(
            f"{repository}: revision {revision} cannot be downloaded ({error}).",
            "Correct `model` and `revision`, or look at the network and at the token of the hub.",
        ) from error
