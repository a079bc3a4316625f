"""The loader of cross-encoders: what it gives is what was published, or an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from stella_assets.core.config import ModelSource
from stella_assets.core.devices import Dtype
from stella_assets.core.models.code import pinned_code
from stella_assets.core.models.integrity import check_files
from stella_assets.core.models.load import loader_arguments, translated, without_cycle
from stella_assets.core.models.shape import check_config_kwargs
from stella_assets.core.models.source import ModelFiles
from stella_assets.core.models.tokenizers import load_tokenizer
from stella_assets.core.quiet import errors_only

ADVICE = ("transformers", "sentence_transformers.base.model")
"""Loggers that warn when an encoder becomes a reranker: here its head is new on purpose, or an error."""


def load_cross_encoder(
    source: ModelSource,
    *,
    dtype: Dtype = "float32",
    device: str = "cpu",
    saved: Path | None = None,
    max_length: int | None = None,
    num_labels: int | None = None,
    is_new: Callable[[str], bool] = lambda _name: False,
) -> tuple[Any, frozenset[str]]:
    """Load a model that gives one score for a pair of texts.

    Args:
        source: The model, and how it is loaded.
        dtype: Number format of the weights, whatever the checkpoint's is.
        device: Of torch.
        saved: A folder that was saved from this model, to load in its place.
        max_length: Tokens of a pair; what the tokenizer says where not given.
        num_labels: Of the head; what the configuration says where not given.
        is_new: Whether weights of a name may be missing, as those of a head that is going to be trained; they are
            random.

    Returns:
        A `CrossEncoder` in evaluation mode, and the names of the weights that are new, in its transformers model.

    Raises:
        UserError: Files are missing or damaged, weights do not fit, there is not one score for a pair, or code is not
            trusted or pinned.
    """
    import torch
    from sentence_transformers import CrossEncoder
    from transformers.utils.logging import disable_progress_bar

    from stella_assets.core.models.buffers import restore_buffers
    from stella_assets.core.models.weights import (
        WeightsError,
        check_finite,
        check_weights,
        loaded_by,
        recorded_weights,
    )

    files = ModelFiles(source, saved)
    if files.folder is not None:
        check_files(files.folder)
    # Small files first, as for every other model: code, configuration and tokenizer are those of the recipe.
    load_tokenizer(source, saved)
    disable_progress_bar()  # type: ignore[no-untyped-call] # loading is seconds, scoring is not
    with translated(files), pinned_code(source), errors_only(*ADVICE), recorded_weights() as records:
        model = CrossEncoder(
            # Older versions of sentence-transformers put the transformers model into a folder of its own.
            str(Path(files.name) / files.encoder) if files.folder else files.name,
            device=device,
            model_kwargs={**source.model_kwargs, "dtype": getattr(torch, dtype)},
            processor_kwargs=dict(source.tokenizer_kwargs),
            config_kwargs=dict(source.config_kwargs),
            max_length=max_length,
            num_labels=num_labels,
            **loader_arguments(files),
        )
    if model.num_labels != 1:
        raise WeightsError(
            f"{files.name}: it gives {model.num_labels} numbers for a pair of texts, and a score is one.",
            "Name a reranker; classifiers of pairs have several labels.",
        )
    record = loaded_by(model.model, records)
    if record is None:
        raise WeightsError(
            f"{files.name}: its weights were not loaded, so they would be random.", "Correct the model's configuration."
        )
    new = frozenset(name for name in record.missing if is_new(name))
    # The pooler counts: the head reads it.
    check_weights(replace(record, missing=record.missing - new), reads_pooler=True)
    restore_buffers(record.module, record.arguments, record.missing)
    check_config_kwargs(files.source, record.module.config)
    check_finite(model, files.name)
    _name_padding(model)
    return without_cycle(model.eval()), new


def _name_padding(model: Any) -> None:
    """Have tokenizer and model agree on a padding token: a decoder finds the last token of a pair by it."""
    tokenizer, config = model.tokenizer, model.model.config
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
