"""The teacher kind `static`: a table of token vectors; a text's vector is the mean of its tokens'.

Shapes: N texts, D dimensions of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from stella_assets.core.devices import Compute
from stella_assets.core.errors import UserError
from stella_assets.core.models import (
    MODULES,
    ST_CONFIG,
    files_digest,
    kept_dimensions,
    read_config,
    source_folder,
    without_cycle,
)
from stella_assets.storage.canonical import digest
from stella_assets.teachers.kinds.base import (
    NOT_OF_VECTORS,
    TEACHERS,
    EmbeddingKind,
    EncoderLimits,
    PublishedTeacher,
    Role,
    fingerprint_of,
)

# The tokens of a part are in memory as Python lists.
TEXTS_AT_ONCE = 2048
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
FILES = ("weights", "tokenizer", "key")
"""Settings that choose among a model's files."""
STATIC_EMBEDDING, MODEL2VEC = "embedding.weight", "embeddings"
"""Name of the table in a file of StaticEmbedding, and of model2vec."""
MAPPING, FACTORS = "mapping", "weights"
"""Of model2vec, by token: its row, where several share one, and what the row is multiplied by."""
# Below it a sum of float32 vectors is rounding error, and its direction means nothing.
ZERO_NORM = 1e-6


@TEACHERS.register
class StaticTeacher(PublishedTeacher):
    """A table of token vectors without an encoder, much faster than a transformer.

    `model` is a folder in the layout of model2vec (`config.json`, `model.safetensors`, `tokenizer.json`), or of a
    SentenceTransformers model whose modules are a StaticEmbedding and at most a Normalize. With `weights` it is any
    folder with a safetensors file that holds the table, and a tokenizer file. Vectors are those of
    `SentenceTransformer.encode` in float32. A text without tokens, or whose tokens' vectors add up to zero, gets the
    direction of the mean of all rows: it is the same in every run, and one such text does not stop a run.

    References:
        https://github.com/MinishLab/model2vec and https://huggingface.co/blog/static-embeddings

    Example:
        >>> settings = {"name": "potion", "licence": "MIT", "model": "./potion-base-8M"}
        >>> teacher = StaticTeacher(kind="static", **settings)
        >>> teacher.open(Path(), Compute()).encode(["one text"], "document").shape
        (1, 256)
    """

    kind: Literal["static"]
    trust_remote_code: Literal[False] = Field(False, description="there is no code to trust")
    weights: str | None = Field(None, description="a safetensors file in the folder, for other layouts")
    tokenizer: str | None = Field(None, description="the tokenizer's JSON file in the folder, with `weights`")
    key: str | None = Field(
        None, description="name of the table in the file; found if `embedding.weight` or `embeddings`"
    )

    @model_validator(mode="after")
    def _refuse_arguments_of_encoders(self) -> Self:
        for setting in ("config_kwargs", "model_kwargs", "tokenizer_kwargs"):
            if getattr(self, setting):
                raise ValueError(f"{setting} is for models with an encoder; a table of token vectors takes none")
        return self

    def external_versions(self, compute: Compute) -> Mapping[str, str]:
        """Digest of the table's and the tokenizer's files."""
        return {"model": self.content_digest()}

    def identity_settings(self) -> dict[str, Any]:
        """All settings but those that its vectors do not depend on."""
        return self.settings(*NOT_OF_VECTORS, "model", "revision", "trust_remote_code")

    def content_digest(self) -> str:
        """What identifies table, tokenizer and prompt: a digest of them, or of hub id and revision."""
        # Hub files are pinned by the commit, and hashing them would need a download.
        if self.on_hub:
            # Which of its files are read is not in the commit; without a choice, the digest is as it always was.
            chosen = {name: value for name in FILES if (value := getattr(self, name))}
            return digest([self.model, self.revision, *([chosen] if chosen else [])])
        return _find_table(self, source_folder(self)).content_digest()

    def open(self, folder: Path, compute: Compute) -> StaticModel:
        """The model; it is loaded when it is first used. A hub's files are downloaded, or found in its cache."""
        return StaticModel(self, compute)

    def reference(self, model: Any, texts: list[str], role: Role) -> np.ndarray:
        """Vectors by `SentenceTransformer.encode`, one text at a time; of texts without tokens, those of `model`."""
        vectors: np.ndarray = model.encode_by_library(texts, role)
        return vectors

    def check(self) -> int | None:
        """Dimensions of the table, from the head of its file; None for a model of a hub.

        Raises:
            UserError: A file does not exist, the model has other modules, or the file has no such table.
        """
        return None if self.on_hub else _find_table(self, source_folder(self)).dim

    def encoder_limits(self, compute: Compute) -> EncoderLimits:
        """It computes in float32 and reads whole texts."""
        return EncoderLimits("float32")


class StaticModel:
    """Means of token vectors, of unit norm, by StaticEmbedding."""

    embedding: EmbeddingKind = "vector"

    def __init__(self, config: StaticTeacher, compute: Compute) -> None:
        self.config = config
        self._compute = compute

    @cached_property
    def _table(self) -> _Table:
        if not self.config.on_hub:
            return _find_table(self.config, source_folder(self.config))
        from huggingface_hub import snapshot_download

        # Neither code nor other formats of the weights.
        patterns = ["*.json", "*.safetensors"]
        folder = snapshot_download(self.config.model, revision=self.config.revision, allow_patterns=patterns)
        return _find_table(self.config, Path(folder))

    @cached_property
    def _module(self) -> Any:
        """The loaded StaticEmbedding, in float32."""
        import torch
        from safetensors.torch import load_file
        from sentence_transformers.sentence_transformer.modules import StaticEmbedding
        from tokenizers import Tokenizer

        table, tokenizer = self._table, Tokenizer.from_file(str(self._table.tokenizer))
        # A token id past the table would be an index error on a CPU and abort the process on a GPU.
        if (tokens := tokenizer.get_vocab_size()) > table.tokens:
            wrong = f"{table.tokenizer} has {tokens:,} tokens, {table.weights} has {table.tokens:,}."
            raise UserError(f"teacher {self.config.name!r}: {wrong}", "Name the tokenizer of this table.")
        tensors = load_file(table.weights)
        rows = tensors[table.key][:, : table.dim].float()
        # Newer model2vec files share rows between tokens and keep factors apart; one plain table is what the module
        # takes.
        if table.key == MODEL2VEC:
            rows = rows[tensors[MAPPING].long()] if MAPPING in tensors else rows
            rows = rows * tensors[FACTORS].float()[:, None] if FACTORS in tensors else rows
        if not torch.isfinite(rows).all():
            raise UserError(
                f"teacher {self.config.name!r}: {table.weights} holds NaN or infinity in {table.key!r}.",
                "Copy or download the file again.",
            )
        return StaticEmbedding(tokenizer, embedding_weights=rows.contiguous()).to(self._compute.device).eval()

    @cached_property
    def _mean_direction(self) -> np.ndarray:
        """The mean of all rows of the table, of unit norm, `[D]` float32."""
        # float64: a table can have 10^5 rows, which may nearly cancel.
        mean_D = self._module.embedding.weight.detach().cpu().numpy().mean(axis=0, dtype=np.float64)
        norm = np.linalg.norm(mean_D)
        # Not `<=`: NaN must fail, too.
        if not norm > ZERO_NORM:
            wrong = "a text has no known token, and the mean of the table is zero."
            raise UserError(f"teacher {self.config.name!r}: {wrong}", "Drop such texts, or take another teacher.")
        mean_direction: np.ndarray = (mean_D / norm).astype(np.float32)
        return mean_direction

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self._table.dim

    def describe(self, role: Role) -> dict[str, Any]:
        """What the vectors depend on: table, tokenizer and prompt. All roles are equal."""
        return {
            "kind": self.config.kind,
            "model": self.config.model,
            "revision": self.config.revision if self.config.on_hub else None,
            # Of the table that is open: finding it again for every unit would parse its files again.
            "weights": self.config.content_digest() if self.config.on_hub else self._table.content_digest(),
            "table": self._table.key,
            "prompt": self._table.prompt,
            "pooling": "mean",
            "without_tokens": "mean of the table",
            "dim": self.dim,
            "dtype": "float32",
            "engine": "sentence-transformers",
            "normalised": True,
        }

    def fingerprint(self, role: Role) -> str:
        """Names what `describe` says, without the model's place: the same files elsewhere are the same teacher."""
        return fingerprint_of(self.describe(role))

    def encode(self, texts: list[str], role: Role) -> np.ndarray:
        """Unit-norm vectors `[N, D]` float32; a text without a direction of its own gets the mean of the table.

        Args:
            texts: Of any length; no token is cut off.
            role: Not used: a static model has one prompt for all roles, or none.

        Raises:
            UserError: The tokenizer has more tokens than the table, or the mean is needed and is zero.
        """
        import torch

        vectors_ND = np.empty((len(texts), self.dim), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(texts), TEXTS_AT_ONCE):
                part = texts[start : start + TEXTS_AT_ONCE]
                features = self._module.preprocess(part, prompt=self._table.prompt or None)
                on_device = {name: value.to(self._compute.device) for name, value in features.items()}
                vectors_ND[start : start + len(part)] = self._module(on_device)["sentence_embedding"].cpu().numpy()
        norms_N = np.linalg.norm(vectors_ND, axis=1)
        # An empty bag gives zeros, which have no direction, and the store takes unit vectors only.
        if (zero_N := norms_N <= ZERO_NORM).any():
            vectors_ND[zero_N], norms_N[zero_N] = self._mean_direction, 1
        return vectors_ND / norms_N[:, None]

    def encode_by_library(self, texts: list[str], role: Role) -> np.ndarray:
        """What `SentenceTransformer.encode` makes of each text alone, `[N, D]` float32."""
        from sentence_transformers import SentenceTransformer

        library = without_cycle(SentenceTransformer(modules=[self._module], device=str(self._compute.device)))
        encode = partial(library.encode, prompt=self._table.prompt, show_progress_bar=False, normalize_embeddings=True)
        vectors_ND = np.stack([encode(text) for text in texts])
        # The library gives zeros for a text without tokens.
        empty_N = ~(np.linalg.norm(vectors_ND, axis=1) > ZERO_NORM)
        if empty_N.any():
            vectors_ND[empty_N] = self._mean_direction
        return vectors_ND

    def parameters(self) -> int:
        """Entries of the table."""
        return int(self._module.embedding.weight.numel())


@dataclass(frozen=True)
class _Table:
    """Files of a static model, and what the head of its safetensors file says."""

    weights: Path
    tokenizer: Path
    prompt: str
    key: str
    tokens: int
    dim: int

    def content_digest(self) -> str:
        """A digest of table, tokenizer and prompt."""
        files = [files_digest(path.parent, [path]) for path in (self.weights, self.tokenizer)]
        return digest([*files, self.key, self.prompt])


def _find_table(config: StaticTeacher, folder: Path) -> _Table:
    """Find table and tokenizer in any of the layouts; no vectors are read.

    Raises:
        UserError: A file does not exist, the model has other modules, or the file has no such table.
    """
    from safetensors import SafetensorError, safe_open

    inner, prompt, kept = folder, "", None
    if config.weights is None and (folder / MODULES).is_file():
        modules = read_config(folder, MODULES)
        kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
        # Any other module, e.g. Dense, would be left out in silence.
        if kinds[0] != "StaticEmbedding" or set(kinds[1:]) - {"Normalize"}:
            raise UserError(
                f"teacher {config.name!r}: {folder} has the modules {', '.join(kinds)}, not a StaticEmbedding alone.",
                "Use `kind: sentence_transformers`.",
            )
        inner = folder / modules[0]["path"]
        if (folder / ST_CONFIG).is_file():
            own = read_config(folder, ST_CONFIG)
            prompt = own.get("prompts", {}).get(own.get("default_prompt_name")) or ""
            kept = kept_dimensions(own, str(folder))
    weights, tokenizer = inner / (config.weights or WEIGHTS), inner / (config.tokenizer or TOKENIZER)
    for path, setting in ((weights, "weights"), (tokenizer, "tokenizer")):
        if not path.is_file():
            raise UserError(
                f"teacher {config.name!r}: {path}: no such file, so this is not a static model.",
                f"Correct `model`, or name the file with `{setting}`.",
            )
    try:
        with safe_open(weights, framework="numpy") as file:
            # Shapes from the head of the file: a check before a run must not load gigabytes.
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise UserError(f"{weights}: is not a safetensors file ({error}).", "Restore the model's folder.") from None
    key = config.key or (STATIC_EMBEDDING if STATIC_EMBEDDING in shapes else MODEL2VEC)
    if len(shapes.get(key, ())) != 2:
        raise UserError(
            f"teacher {config.name!r}: {weights} holds no table {key!r}, but {shapes}.", "Name the table with `key`."
        )
    rows, dim = shapes[key][0], min(shapes[key][1], kept or shapes[key][1])
    # With a mapping, tokens count, not the rows that they share.
    tokens = shapes[MAPPING][0] if key == MODEL2VEC and MAPPING in shapes else rows
    return _Table(weights, tokenizer, prompt, key, tokens, dim)
