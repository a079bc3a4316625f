"""Where a model's files lie, and what identifies them."""

from __future__ import annotations

import importlib.util
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from stella_assets.core.config import ModelSource
from stella_assets.core.errors import UserError
from stella_assets.storage.canonical import digest
from stella_assets.storage.files import file_digest

CONFIG, MODULES, ST_CONFIG = "config.json", "modules.json", "config_sentence_transformers.json"
SETTINGS_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Of the Transformer module; older versions named the file after the architecture."""
ORIGINAL = "Name the folder of the original checkpoint, with weights in safetensors."
ADAPTER = "adapter_config.json"
MERGE = "Merge the two, e.g. with `merge_and_unload` of peft, save the result with its tokenizer, and name its folder."
OTHER_KINDS = {
    ADAPTER: ("an adapter (LoRA) without the model that it changes", MERGE),
    "*.gguf": (
        "weights for llama.cpp (GGUF)",
        ORIGINAL,
    ),
    "*.onnx": ("a model exported as ONNX", ORIGINAL),
    "openvino_model.*": (
        "a model exported for OpenVINO",
        ORIGINAL,
    ),
    "*.safetensors": (
        "weights without a configuration",
        f"Restore {CONFIG} and the files of the tokenizer next to the weights.",
    ),
}
"""What a folder holds that is no checkpoint of transformers, by a file that shows it, and what to do."""
CHECKPOINTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")
"""Files of weights. The model's own code may read any of them."""
RESTORE = "Restore the model's folder."


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
        try:
            found = importlib.util.find_spec(package)
        except (ImportError, ValueError):  # what is not the name of a package, e.g. `..` or nothing
            found = None
        if found is None or found.origin is None:
            raise ModelNotFoundError(
                f"{source.model[:200]}: Python package {package[:100]!r} is not installed.",
                "Install it with pip, or name another model.",
            )
        folder = Path(found.origin).parent / inner
    else:
        folder = source.resolve(source.model)
    if folder.is_file():
        raise ModelNotFoundError(
            f"{folder}: is a file, and `model` names a folder with {CONFIG}, weights and tokenizer.",
            ORIGINAL if folder.suffix == ".gguf" else "Name the folder of the model.",
        )
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
        holds, remedy = other_kind(folder) or ("no model of SentenceTransformers or transformers", "Correct `model`.")
        raise ModelNotFoundError(f"{folder}: it has neither {MODULES} nor {CONFIG}: it holds {holds}.", remedy)
    return folder


def other_kind(folder: Path) -> tuple[str, str] | None:
    """What a folder holds that is no checkpoint, and what to do; None where nothing tells."""
    return next((said for pattern, said in OTHER_KINDS.items() if any(folder.rglob(pattern))), None)


def read_config(folder: Path, name: str = CONFIG) -> Any:
    """A JSON file of a model's folder.

    Returns:
        A mapping; of `modules.json`, a list of mappings that have a `path` and a `type`.

    Raises:
        ModelNotFoundError: There is no such file, or it is not JSON of this form.
    """
    path = folder / name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelNotFoundError(f"{path}: no such file.", "Correct `model`, or restore the folder.") from None
    except OSError as error:
        raise ModelNotFoundError(f"{path}: cannot be read ({error.strerror}).", RESTORE) from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ModelNotFoundError(f"{path}: is not JSON from {place} on.", RESTORE) from None
    except (ValueError, RecursionError):  # not UTF-8, a number of thousands of digits, or nested without end
        raise ModelNotFoundError(f"{path}: is not JSON.", RESTORE) from None
    if Path(name).name == MODULES:
        if not isinstance(content, list) or not all(_is_module(each, folder) for each in content):
            raise ModelNotFoundError(f"{path}: is not a list of modules with `path` and `type`.", RESTORE)
    elif not isinstance(content, dict):
        raise ModelNotFoundError(f"{path}: is not a mapping of names to values.", RESTORE)
    return content


def _is_module(module: Any, folder: Path) -> bool:
    if not isinstance(module, dict) or not all(isinstance(module.get(key), str) for key in ("path", "type")):
        return False
    try:
        # Without the folder a model may still be read: not every module has files.
        (folder / module["path"]).is_dir()
    except OSError:  # a name that no file can have
        return False
    return True


class ModelFiles:
    """The small files of a model, by their path in its folder or repository.

    Args:
        source: The model. Files of a hub are downloaded when they are read, or found in the cache.
        saved: A folder that was saved from this model, to read in its place.

    Attributes:
        folder: Where the files lie; None for a model of a hub.
    """

    def __init__(self, source: ModelSource, saved: Path | None = None) -> None:
        self.source = source
        self.folder = saved or (None if source.on_hub else model_folder(source))

    @property
    def name(self) -> str:
        """Folder or hub id, for `from_pretrained`."""
        return str(self.folder or self.source.model)

    def read(self, path: str) -> Any:
        """A JSON file; None if there is none.

        Raises:
            ModelNotFoundError: It is not JSON.
        """
        if self.folder is not None:
            return read_config(self.folder, path) if (self.folder / path).is_file() else None
        from transformers.utils.hub import cached_file

        found = cached_file(
            self.source.model, path, revision=self.source.revision, _raise_exceptions_for_missing_entries=False
        )
        return read_config(Path(found).parent, Path(found).name) if found else None

    @property
    def modules(self) -> list[dict[str, Any]]:
        """The modules of a SentenceTransformers model; empty for a plain transformers model."""
        return self.read(MODULES) or []

    @property
    def encoder(self) -> str:
        """The folder, in the model's own, of the transformers model: older versions of the library gave it one."""
        return str(self.modules[0]["path"]).strip("/") if self.modules else ""

    @property
    def settings(self) -> tuple[str, dict[str, Any]]:
        """Path and content of the settings of the Transformer module; empty where it has none.

        Raises:
            ModelNotFoundError: `max_seq_length` is no number of tokens.
        """
        for name in SETTINGS_FILES:
            if found := self.read(path := self.in_encoder(name)):
                length = found.get("max_seq_length")
                if length is not None and (not isinstance(length, int) or length < 1):
                    raise ModelNotFoundError(
                        f"{self.name}/{path}: max_seq_length {length!r:.50} is no number of tokens.", RESTORE
                    )
                return path, found
        return "", {}

    def arguments(self, *names: str) -> dict[str, Any]:
        """Arguments that those settings have for a loader, e.g. `config_kwargs`; the first of the names counts.

        Raises:
            ModelNotFoundError: They are not a mapping.
        """
        path, settings = self.settings
        found: Any = next((settings[name] for name in names if settings.get(name) is not None), {})
        if not isinstance(found, dict):
            raise ModelNotFoundError(f"{self.name}/{path}: {names[0]} is not a mapping of names to values.", RESTORE)
        return found

    def in_encoder(self, name: str) -> str:
        """The path of a file of the transformers model."""
        return f"{self.encoder}/{name}" if self.encoder else name


def in_one_line(error: Exception) -> str:
    """What a library's error says, for the message of another one."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def folder_files(folder: Path) -> list[Path]:
    """All files of a folder and of those in it, also where one of them is a link to a folder elsewhere."""
    found: list[Path] = []
    seen: set[Path] = set()
    # Not `rglob`, which passes over links to folders: what they hold is loaded, too.
    for parent, folders, names in os.walk(folder, followlinks=True):
        place = Path(parent).resolve()
        if place in seen:
            folders.clear()  # a link to where it has been has no end
            continue
        seen.add(place)
        folders.sort()
        found += [Path(parent, name) for name in names]
    return found


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
