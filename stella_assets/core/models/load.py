"""The one loader of SentenceTransformers models: what it gives is what was published, or an error."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stella_assets.core.config import ModelSource
from stella_assets.core.devices import Dtype
from stella_assets.core.models.code import check_code, pinned_code
from stella_assets.core.models.integrity import check_files
from stella_assets.core.models.libraries import RESTORE_OR_CORRECT, is_of_model, load_error
from stella_assets.core.models.shape import check_config_kwargs
from stella_assets.core.models.source import ModelFiles
from stella_assets.core.models.tokenizers import load_tokenizer


def load_sentence_transformer(
    source: ModelSource, *, dtype: Dtype = "float32", device: str = "cpu", saved: Path | None = None
) -> Any:
    """Load a model, and make sure that all of it is what was published.

    Args:
        source: The model, and how it is loaded.
        dtype: Number format of the weights, whatever the checkpoint's is.
        device: Of torch.
        saved: A folder that was saved from this model, to load in its place.

    Returns:
        A `SentenceTransformer` in evaluation mode.

    Raises:
        UserError: Files are missing or damaged, weights or tokenizer do not fit, or code is not trusted or pinned.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    from stella_assets.core.models.weights import recorded_weights

    files = ModelFiles(source, saved)
    if files.folder is not None:
        check_files(files.folder)
    # Small files first: code, configuration and tokenizer are compared with the recipe before weights are read.
    load_tokenizer(source, saved)
    disable_progress_bar()  # type: ignore[no-untyped-call] # loading is seconds, encoding is not
    with translated(files), pinned_code(source), recorded_weights() as records:
        model = SentenceTransformer(
            files.name,
            device=device,
            # Cast while loading: `.to()` would also round the buffers of rotary positions, which stay in float32.
            model_kwargs={**source.model_kwargs, "dtype": getattr(torch, dtype)},
            processor_kwargs=dict(source.tokenizer_kwargs),
            config_kwargs=dict(source.config_kwargs),
            **loader_arguments(files),
        )
    _check(model, records, files)
    return without_cycle(model.eval())


def loader_arguments(files: ModelFiles) -> dict[str, Any]:
    """The arguments that `SentenceTransformer` and its modules' `load` take with a model's name."""
    trust = {"trust_remote_code": files.source.trust_remote_code}
    # Otherwise a file that the folder lacks would be looked for on the hub.
    return trust | ({"local_files_only": True} if files.folder is not None else {"revision": files.source.revision})


def load_module(kind: Any, source: ModelSource, folder: str) -> Any:
    """Load one module of sentence-transformers from a folder of a model.

    Args:
        kind: Class of the module.
        source: The model.
        folder: In the model's own.

    Raises:
        UserError: It cannot be loaded, or its weights do not fit.
    """
    from stella_assets.core.models.weights import check_finite, recorded_weights

    files = ModelFiles(source)
    check_code(files, folder)
    with translated(files), pinned_code(source), recorded_weights():
        module = kind.load(files.name, subfolder=folder, **loader_arguments(files))
    check_finite(module, f"{files.name}/{folder}")
    return module


def _check(model: Any, records: list[Any], files: ModelFiles) -> None:
    """Compare a loaded model with its files and with its class."""
    from transformers import PreTrainedModel

    from stella_assets.core.models.buffers import restore_buffers
    from stella_assets.core.models.weights import WeightsError, check_finite, check_weights, loaded_by, settle_unread

    for record in records:
        check_weights(record, reads_pooler=False)
    inner: set[int] = set()
    for module in model.modules():
        if not isinstance(module, PreTrainedModel) or id(module) in inner:
            continue
        # Parts of a model are loaded with it.
        inner |= {id(part) for part in module.modules()}
        record = loaded_by(module, records)
        if record is None:
            raise WeightsError(
                f"{files.name}: {type(module).__name__} was made without loading weights, so they would be random.",
                "Correct the model's modules.json or its code.",
            )
        restore_buffers(module, record.arguments, record.missing)
        check_config_kwargs(files.source, module.config)
    settle_unread(model, records)
    check_finite(model, str(Path(files.name) / files.encoder) if files.folder else files.name)


@contextmanager
def translated(files: ModelFiles, otherwise: str = RESTORE_OR_CORRECT) -> Iterator[None]:
    """Tell which model an error of the libraries, or of its code, is about.

    Args:
        files: Of the model.
        otherwise: The remedy for a model without code of its own.
    """
    try:
        yield
    except Exception as error:
        if not is_of_model(files.source, error):
            raise
        raise load_error(files, error, otherwise) from error


def without_cycle(model: Any) -> Any:
    """A `SentenceTransformer` whose memory is free as soon as nobody refers to it.

    Its model card refers back to it. Such a cycle waits for the garbage collector, which counts objects and not bytes,
    so gigabytes of a few models would stay for long.
    """
    model.model_card_data.model = weakref.proxy(model)
    return model
