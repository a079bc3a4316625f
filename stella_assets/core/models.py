"""Where a model's files lie, and what identifies them."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

from stella_assets.core.manifest import digest, file_digest
from stella_assets.recipe import ModelSource

CONTENT_SUFFIXES = {".safetensors", ".json", ".txt", ".model", ".bin", ".py"}


class ModelNotFoundError(ValueError):
    """A model folder or package that is not there."""


def model_folder(source: ModelSource) -> Path:
    """The folder of a model that does not come from a hub.

    Raises:
        ModelNotFoundError: There is no such folder or package, or it holds no model.
    """
    if source.model.startswith("package:"):
        package, _, inner = source.model.removeprefix("package:").partition("/")
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None:
            raise ModelNotFoundError(
                f"{source.model}: Python package {package!r} is not installed. Install it with pip, or name another "
                "model."
            )
        folder = Path(found.origin).parent / inner
    else:
        folder = source.resolve(source.model)
    if not folder.is_dir():
        raise ModelNotFoundError(
            f"{folder}: no such model folder. Correct `model`; a relative path counts from the recipe."
        )
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise ModelNotFoundError(
            f"{folder}: neither modules.json nor config.json is in it, so it is no model of SentenceTransformers or "
            "transformers."
        )
    return folder


def place(source: ModelSource) -> tuple[str, dict[str, Any]]:
    """Name or folder of a model, and the arguments that every loader of the ecosystem takes beside it."""
    if not source.on_hub:
        return str(model_folder(source)), {"local_files_only": True}
    return source.model, {"revision": source.revision, "trust_remote_code": source.trust_remote_code}


def load_sentence_transformer(name: str, device: str = "cpu", **arguments: Any) -> Any:
    """A `SentenceTransformer`, without the progress bars of transformers: loading is seconds, encoding is not."""
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    return SentenceTransformer(name, device=device, **arguments)


def load_tokenizer(source: ModelSource) -> Any:
    """The tokenizer of a model."""
    from transformers import AutoTokenizer

    name, arguments = place(source)
    return AutoTokenizer.from_pretrained(name, **arguments)


def model_digest(source: ModelSource) -> str:
    """What identifies the weights: a digest of the folder's files, or of hub id and revision."""
    if source.on_hub:
        return digest([source.model, source.revision])
    folder = model_folder(source)
    files = sorted(path for path in folder.rglob("*") if path.suffix in CONTENT_SUFFIXES and path.is_file())
    stats = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return _files_digest(str(folder), stats)


@lru_cache(maxsize=64)
def _files_digest(folder: str, stats: tuple[tuple[str, int, int], ...]) -> str:
    """Hashed once a process for files that have not changed since."""
    return digest({str(Path(name).relative_to(folder)): file_digest(Path(name)) for name, _, _ in stats})
