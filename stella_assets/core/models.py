"""Where a model's files lie, and what identifies them."""

from __future__ import annotations

import importlib.util
import json
import weakref
from functools import lru_cache
from pathlib import Path
from typing import Any

from stella_assets.core.config import ModelSource
from stella_assets.core.errors import UserError
from stella_assets.core.manifest import digest
from storage.files import file_digest

# What decides a model's vectors: weights, configuration, vocabulary and its own code; not README or images.
CONTENT_SUFFIXES = {".safetensors", ".json", ".txt", ".model", ".bin", ".py"}
CONFIG, MODULES = "config.json", "modules.json"


class ModelNotFoundError(UserError):
    """A model's folder, package or configuration file does not exist or cannot be read."""


def source_folder(source: ModelSource) -> Path:
    """The folder that a model's `model` names, whatever it holds. The model does not come from a hub.

    Raises:
        ModelNotFoundError: There is no such folder, or the package is not installed.
    """
    if source.model.startswith("package:"):
        package, _, inner = source.model.removeprefix("package:").partition("/")
        # Found without importing: the package may import torch.
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None:
            raise ModelNotFoundError(
                f"{source.model}: Python package {package!r} is not installed.",
                "Install it with pip, or name another model.",
            )
        folder = Path(found.origin).parent / inner
    else:
        folder = source.resolve(source.model)
    if not folder.is_dir():
        raise ModelNotFoundError(
            f"{folder}: no such model folder.", "Correct `model`; a relative path counts from the recipe's folder."
        )
    return folder


def model_folder(source: ModelSource) -> Path:
    """The folder of a SentenceTransformers or transformers model that does not come from a hub.

    Raises:
        ModelNotFoundError: There is no such folder or package, or it holds no such model.
    """
    folder = source_folder(source)
    if not (folder / CONFIG).is_file() and not (folder / MODULES).is_file():
        raise ModelNotFoundError(
            f"{folder}: it has neither {MODULES} nor {CONFIG}, so it is not a model of SentenceTransformers or "
            "transformers.",
            "Correct `model`.",
        )
    return folder


def read_config(folder: Path, name: str = CONFIG) -> Any:
    """A JSON file of a model's folder.

    Raises:
        ModelNotFoundError: There is no such file, or it is not JSON.
    """
    path = folder / name
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelNotFoundError(f"{path}: no such file.", "Correct `model`, or restore the folder.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelNotFoundError(f"{path}: is not JSON ({error}).", "Restore the model's folder.") from None


def resolve_model(source: ModelSource) -> tuple[str, dict[str, Any]]:
    """Folder or hub id of a model, and the arguments that every loader of the ecosystem takes with it.

    Args:
        source: The model.

    Returns:
        A name and keyword arguments, for `from_pretrained` and `SentenceTransformer`.

    Raises:
        ModelNotFoundError: It is a folder, and there is no model in it.
    """
    if not source.on_hub:
        # Otherwise a file that the folder lacks would be looked for on the hub.
        return str(model_folder(source)), {"local_files_only": True}
    return source.model, {"revision": source.revision, "trust_remote_code": source.trust_remote_code}


def load_sentence_transformer(name: str, device: str = "cpu", **arguments: Any) -> Any:
    """A `SentenceTransformer`, without the progress bars of transformers: loading is seconds, encoding is not."""
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    return without_cycle(SentenceTransformer(name, device=device, **arguments))


def without_cycle(model: Any) -> Any:
    """A `SentenceTransformer` whose memory is free as soon as nobody refers to it.

    Its model card refers back to it. Such a cycle waits for the garbage collector, which counts objects and not bytes,
    so gigabytes of a few models would stay for long.
    """
    model.model_card_data.model = weakref.proxy(model)
    return model


def load_tokenizer(source: ModelSource) -> Any:
    """The tokenizer of a model."""
    from transformers import AutoTokenizer

    name, arguments = resolve_model(source)
    return AutoTokenizer.from_pretrained(name, **arguments)


def model_digest(source: ModelSource) -> str:
    """What identifies the weights: a digest of the folder's files, or of hub id and revision.

    Raises:
        ModelNotFoundError: It is a folder, and there is no model in it.
    """
    if source.on_hub:
        # The hub's commit names the content, so nothing has to be downloaded to know it.
        return digest([source.model, source.revision])
    folder = model_folder(source)
    return files_digest(folder, [path for path in folder.rglob("*") if path.suffix in CONTENT_SUFFIXES])


def files_digest(folder: Path, paths: list[Path]) -> str:
    """A digest of files of a folder: of their names in it and their bytes."""
    files = sorted(path for path in paths if path.is_file())
    # The cache key: hashing gigabytes of weights takes seconds, and several steps ask for the same model.
    stats = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return _files_digest(str(folder), stats)


@lru_cache(maxsize=64)
def _files_digest(folder: str, stats: tuple[tuple[str, int, int], ...]) -> str:
    """Computed once per process for files that have not changed since."""
    return digest({str(Path(name).relative_to(folder)): file_digest(Path(name)) for name, _, _ in stats})
