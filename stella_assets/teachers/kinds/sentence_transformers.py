"""The teacher kind `sentence_transformers`.

Shapes: N texts, B texts of a batch, W tokens of a padded row, D dimensions of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from stella_assets.core.batching import padded_widths, padding_of, token_budget_batches
from stella_assets.core.config import ModelSource, Positive
from stella_assets.core.devices import Compute, Dtype, DtypeChoice
from stella_assets.core.environments import EnvironmentConfig
from stella_assets.core.errors import UserError
from stella_assets.core.models import (
    CONFIG,
    MODULES,
    LoadError,
    ModelFiles,
    check_code,
    check_files,
    encoder_format,
    explained_code,
    load_module,
    load_sentence_transformer,
    load_tokenizer,
    model_digest,
    model_folder,
    modules_width,
    read_config,
    read_width,
    require_text_vectors,
    truncated_width,
)
from stella_assets.core.progress import progress_bar
from stella_assets.teachers.kinds.base import (
    NOT_OF_VECTORS,
    TEACHERS,
    EmbeddingKind,
    EncoderLimits,
    PublishedTeacher,
    Role,
    TeacherModel,
    fingerprint_of,
    prompt_of,
)
from stella_assets.teachers.tokenise import tokenise


@TEACHERS.register
class SentenceTransformersTeacher(PublishedTeacher):
    """A SentenceTransformers model. `prompts` are put in front of the texts of a role.

    Vectors are those of `SentenceTransformer.encode(normalize_embeddings=True)`, up to the rounding of `dtype`.

    References:
        Reimers and Gurevych, 2019, Sentence-BERT, arXiv 1908.10084.

    Example:
        >>> settings = {"name": "minilm", "licence": "Apache-2.0", "model": "./all-MiniLM-L6-v2"}
        >>> teacher = SentenceTransformersTeacher(kind="sentence_transformers", **settings)
        >>> teacher.open(Path(), Compute()).encode(["one text"], "document").shape
        (1, 384)
    """

    kind: Literal["sentence_transformers"]
    prompts: dict[Literal["query", "document"], str] = Field({}, description="put before texts, by role")
    evaluation_prompts: dict[str, str] = Field(
        {}, description="put before the texts of tasks, by mteb's keys; `{instruction}` is the task's"
    )
    dense_folder: str | None = Field(None, description="the Dense folder to use instead of the one in modules.json")
    max_length: Positive = Field(512, le=1_048_576, description="tokens")
    max_batch_tokens: Positive = Field(4096, le=4_194_304, description="tokens of a batch, padding included")
    dtype: DtypeChoice = Field(
        "auto", description="number format of the encoder; `auto` is what the device and the model's code compute in"
    )
    environment: EnvironmentConfig | None = Field(
        None, description="a Python environment of its own, for a model whose code needs other libraries than ours"
    )

    def external_versions(self, compute: Compute) -> Mapping[str, str]:
        """Digest of the weights, the number format of the encoder, and the versions in its environment."""
        own = {"environment": self.environment.digest()} if self.environment else {}
        return {"model": model_digest(self), "dtype": self._known_format(compute), **own}

    def _known_format(self, compute: Compute) -> Dtype:
        """The number format of the encoder as far as it is known without a download."""
        return compute.dtype(self.dtype) if self.on_hub else encoder_format(self, self.dtype, compute)

    def identity_settings(self) -> dict[str, Any]:
        """All settings but those that its vectors do not depend on."""
        return self.settings(*NOT_OF_VECTORS, "model", "revision", "evaluation_prompts", "environment")

    def own_environment(self) -> EnvironmentConfig | None:
        """The recipe's `environment`."""
        return self.environment

    def open(self, folder: Path, compute: Compute) -> TeacherModel:
        """The model; it is loaded when it is first used."""
        del folder
        if self.environment is None:
            return SentenceTransformersModel(self, compute)
        # Here, because that file imports this folder's base, too.
        from stella_assets.teachers.isolated import IsolatedModel

        return IsolatedModel(self, self.environment, compute)

    def describe(self, prompt: str, pooling: str, dim: int, dtype: str) -> dict[str, Any]:
        """Everything that a vector depends on in addition to the text, as plain values; `weights` is a digest.

        Args:
            prompt: Put before the text.
            pooling: Of the loaded model.
            dim: Dimensions of a vector.
            dtype: Number format of the encoder.
        """
        return {
            "kind": self.kind,
            "model": self.model,
            "revision": self.revision if self.on_hub else None,
            "weights": model_digest(self),
            "prompt": prompt,
            "pooling": pooling,
            "dense_folder": self.dense_folder,
            "max_length": self.max_length,
            "dim": dim,
            "dtype": dtype,
            "engine": "sentence-transformers",
            "normalised": True,
        }

    def prompt(self, role: Role) -> str | None:
        """What is put before the texts of a role; None where that is the model's own default."""
        given = prompt_of(role)
        return self.prompts.get(role) if given is None else given  # type: ignore[call-overload]

    def reference(self, model: Any, texts: list[str], role: Role) -> np.ndarray:
        """Vectors by `SentenceTransformer.encode`.

        Raises:
            UserError: The library would make vectors that the authors of this model never published.
        """
        require_text_vectors(ModelFiles(self))
        vectors: np.ndarray = model.encode_by_library(texts, role)
        return vectors

    def check(self) -> int | None:
        """Dimensions, as the folder's configuration files say; None for a model of a hub.

        Raises:
            UserError: A file of the model does not exist or is damaged, its code is not trusted or pinned, or the
                environment has no sentence-transformers.
        """
        if self.environment:
            from stella_assets.teachers.isolated import check_requirements

            check_requirements(self, self.environment)
        if self.on_hub:
            return None
        folder = model_folder(self)
        require_text_vectors(ModelFiles(self))
        check_code(ModelFiles(self), *([self.dense_folder] if self.dense_folder else []))
        check_files(folder)
        encoder_format(self, self.dtype, Compute())
        if self.environment is None:
            load_tokenizer(self)
        if self.dense_folder:
            if not (folder / self.dense_folder / CONFIG).is_file():
                raise UserError(
                    f"{folder}: there is no Dense layer in {self.dense_folder!r}.", "Correct `dense_folder`."
                )
            return truncated_width(ModelFiles(self), int(read_config(folder / self.dense_folder)["out_features"]))
        if self.environment is None:
            return read_width(self)
        # Its code runs in the environment alone, and AutoConfig would run a part of it here.
        files = ModelFiles(self)
        return modules_width(files) or (files.read(files.in_encoder(CONFIG)) or {}).get("hidden_size")

    def task_prompts(self) -> Mapping[str, str]:
        """Its `evaluation_prompts`."""
        return self.evaluation_prompts

    def encoder_limits(self, compute: Compute) -> EncoderLimits:
        """Number format on this device, and `max_length`."""
        return EncoderLimits(self._known_format(compute), self.max_length)


class SentenceTransformersModel:
    """Encodes in token-budgeted batches, longest texts first.

    The encoder computes in the configured number format; pooling, Dense layers and the norm are always float32.
    """

    embedding: EmbeddingKind = "vector"

    def __init__(self, config: SentenceTransformersTeacher, compute: Compute) -> None:
        self.config = config
        self._compute = compute

    @cached_property
    def dtype(self) -> Dtype:
        """Number format of the encoder."""
        return encoder_format(self.config, self.config.dtype, self._compute)

    @cached_property
    def model(self) -> Any:
        """The loaded `SentenceTransformer`."""
        model = load_sentence_transformer(self.config, dtype=self.dtype, device=str(self._compute.device))
        if self.config.dense_folder:
            _replace_dense(model, self.config, self.config.dense_folder)
        first, *others = model
        # Pooling sums hundreds of tokens; in bfloat16, with 8 bits of precision, that loses what the encoder computed.
        first.register_forward_hook(_to_float32)
        for module in others:
            module.float()
        # Never above the model's own limit: positions past it have no embedding.
        limit = model.max_seq_length
        model.max_seq_length = min(self.config.max_length, limit) if limit else self.config.max_length
        return model.eval()

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return int(self.model.get_embedding_dimension())

    def describe(self, role: Role) -> dict[str, Any]:
        """Everything that a vector depends on in addition to the text."""
        return self.config.describe(self._prompt(role), _pooling_mode(self.model), self.dim, self.dtype)

    def fingerprint(self, role: Role) -> str:
        """Names what `describe` says, without the model's place: the same weights elsewhere are the same teacher."""
        return fingerprint_of(self.describe(role))

    def encode(self, texts: list[str], role: Role) -> np.ndarray:
        """Unit-norm vectors `[N, D]` float32, in the order of `texts`.

        Args:
            texts: Of any length; tokens past `max_length` are cut off.
            role: Decides the prompt.

        Raises:
            UserError: The model does not make one row of tokens per text, or has no such Dense layer.
        """
        import torch

        tokens = tokenise(self.model, texts, self._prompt(role))
        widths_N = padded_widths(tokens.lengths, self.model.max_seq_length)
        vectors_ND = np.empty((len(texts), self.dim), dtype=np.float32)
        bar_of_texts = progress_bar(len(texts), self.config.name, "texts")
        with explained_code(self.config), torch.inference_mode(), bar_of_texts as bar:
            for batch in token_budget_batches(widths_N, self.config.max_batch_tokens):
                # Batches are sorted by length, longest first, so the first text has the width of the batch.
                features = tokens.batch(batch, int(widths_N[batch[0]]))
                on_device = {k: v.to(self.model.device) if torch.is_tensor(v) else v for k, v in features.items()}
                encoded_BD = self._encoded(on_device)
                # A second norm does nothing to models that end in Normalize, and others need one.
                vectors_ND[batch] = torch.nn.functional.normalize(encoded_BD.float(), dim=1).cpu().numpy()
                bar.update(len(batch))
        return vectors_ND

    def _encoded(self, features: dict[str, Any]) -> Any:
        """What the modules make of a batch, `[B, D]`."""
        encoded_BD = self.model(features).get("sentence_embedding")
        if encoded_BD is not None:  # as the library gives it; None keeps all dimensions
            encoded_BD = encoded_BD[:, : self.model.truncate_dim]
        found = "none" if encoded_BD is None else encoded_BD.shape[-1]
        if found != self.dim:
            raise UserError(
                f"teacher {self.config.name!r}: by {MODULES} vectors have {self.dim} dimensions, and its modules make "
                f"{found}.",
                f"Restore {MODULES} and the configurations of the modules.",
            )
        return encoded_BD

    def encode_by_library(self, texts: list[str], role: Role) -> np.ndarray:
        """What `SentenceTransformer.encode` makes of each text alone, `[N, D]` float32: without any padding."""
        prompt, encode = self._prompt(role), partial(self.model.encode, show_progress_bar=False)
        tokenizer = self.model.tokenizer
        if tokenizer.pad_token_id is None:
            # The library asks for a padding token also where nothing is padded.
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding_of(tokenizer)["input_ids"])
        return np.stack([encode(text, prompt=prompt, normalize_embeddings=True) for text in texts])

    def parameters(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.model.parameters())

    def _prompt(self, role: Role) -> str:
        """The recipe's prompt of the role, else the model's own default, as `SentenceTransformer.encode` takes it."""
        own = self.config.prompt(role)
        return own if own is not None else self.model.prompts.get(self.model.default_prompt_name) or ""


def _to_float32(_encoder: Any, _inputs: Any, features: dict[str, Any]) -> dict[str, Any]:
    """What the encoder hands on, in float32 for the modules after it."""
    import torch

    return {k: v.float() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in features.items()}


def _pooling_mode(model: Any) -> str:
    """Mode or modes of the model's Pooling module, or `none`."""
    from sentence_transformers.sentence_transformer.modules import Pooling

    for module in model:
        if isinstance(module, Pooling):
            return module.pooling_mode if isinstance(module.pooling_mode, str) else "+".join(module.pooling_mode)
    return "none"


def _replace_dense(model: Any, source: ModelSource, folder: str) -> None:
    """Use another of the Dense layers that Stella models keep next to one another, one per dimension."""
    from sentence_transformers.sentence_transformer.modules import Dense

    places = [place for place, module in enumerate(model) if isinstance(module, Dense)]
    if not places:
        raise UserError(
            f"{source.model}: the model has no Dense layer to replace by {folder!r}.", "Remove `dense_folder`."
        )
    try:
        # Stella models have one Dense in their modules; of several the last one sets the dimensions.
        model[places[-1]] = load_module(Dense, source, folder).to(model.device)
    except LoadError as error:
        raise UserError(
            f"{source.model}: there is no Dense layer in {folder!r} ({error.message}).", "Correct `dense_folder`."
        ) from None
