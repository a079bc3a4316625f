"""Code that comes with a model: what of it is named, whether the recipe trusts it, and what pins it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any

from stella_assets.core.config import ModelSource
from stella_assets.core.errors import UserError
from stella_assets.core.models.source import CONFIG, MODULES, ModelFiles, files_digest, folder_files, in_one_line

NAMING_FILES = (CONFIG, "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
"""Files of transformers whose `auto_map` names classes."""
LOADING = RLock()
LIBRARY = "sentence_transformers."
"""Modules in this namespace are the library's own."""
ACTIVATION = "activation_function"
"""Of the config.json of a Dense: a class by its name, e.g. `torch.nn.modules.activation.Tanh`."""


class CodeError(UserError):
    """A model brings code that the recipe does not trust, or that is not the code that it pins."""


@dataclass(frozen=True)
class NamedCode:
    """A class that a model's files name, and that no library has.

    Attributes:
        file: Which names it.
        key: In the file.
        reference: The class, e.g. `modeling.NewModel` or `org/repository--modeling.NewModel`.
    """

    file: str
    key: str
    reference: str

    @property
    def repository(self) -> str | None:
        """The other repository that holds the class; None for the model's own."""
        repository, separator, _ = self.reference.partition("--")
        return repository if separator else None


def named_code(files: ModelFiles, *others: str) -> list[NamedCode]:
    """All code that the files of a model name, and that the recipe does not replace by the libraries' own classes.

    Args:
        files: Of the model.
        others: Folders of Dense modules that its modules.json does not name.
    """
    found = []
    for name in NAMING_FILES:
        if "auto_map" in (files.source.config_kwargs if name == CONFIG else files.source.tokenizer_kwargs):
            continue
        path = files.in_encoder(name)
        named = (files.read(path) or {}).get("auto_map") or {}
        replaced = files.arguments("config_args", "config_kwargs") if name == CONFIG else {}
        if "auto_map" in replaced:
            path, named = files.settings[0], replaced["auto_map"]
        # A tokenizer has two classes, of which one may be null; former ones have no key.
        classes = named if isinstance(named, dict) else {"tokenizer": named}
        for key, value in classes.items():
            references = value if isinstance(value, list) else [value]
            found += [NamedCode(path, f"auto_map.{key}", str(reference)) for reference in references if reference]
    for module in files.modules:
        if not module["type"].startswith(LIBRARY):
            found.append(NamedCode(MODULES, "type", module["type"]))
    dense = [module["path"] for module in files.modules if module["type"].endswith(".Dense")]
    for path in [f"{folder}/{CONFIG}" for folder in (*dense, *others)]:
        activation = (files.read(path) or {}).get(ACTIVATION)
        # Without trust, sentence-transformers takes another function than the one that is named.
        if isinstance(activation, str) and not activation.startswith("torch."):
            found.append(NamedCode(path, ACTIVATION, activation))
    return found


def code_digest(folder: Path) -> str | None:
    """What pins the code in a folder: a digest of its Python files; None where there are none."""
    paths = [path for path in folder_files(folder) if path.suffix == ".py"]
    return files_digest(folder, paths) if paths else None


def check_code(files: ModelFiles, *others: str) -> None:
    """Make sure that a model runs no code but that which the recipe trusts and pins.

    Args:
        files: Of the model. Those of a hub are downloaded, or found in its cache.
        others: Folders of Dense modules that its modules.json does not name.

    Raises:
        CodeError: There is code that the recipe does not trust or pin, or it is not the pinned one. The message has the
            digest of a folder's code.
    """
    source, named = files.source, named_code(files, *others)
    own = None if files.folder is None else code_digest(files.folder)
    if named and not source.trust_remote_code:
        pin = f" and `code_digest: {own}`" if own else ""
        raise CodeError(
            f"{files.name}: {named[0].file} names code in `{named[0].key}` ({named[0].reference}), and the recipe does "
            "not trust code that comes with this model.",
            f"Read the code, then set `trust_remote_code: true`{pin}. To load the class of the installed libraries "
            "instead, which may compute something else, set `auto_map: {}` in `config_kwargs` or `tokenizer_kwargs`.",
        )
    if not source.trust_remote_code:
        return
    if files.folder is not None and own != source.code_digest:
        raise CodeError(
            f"{files.name}: the code in this folder has the digest {own or 'of no file'}, and `code_digest` is "
            f"{source.code_digest or 'not set'}.",
            f"Read the code, then set `code_digest: {own}`." if own else "Remove `code_digest`.",
        )
    _check_other_repositories(source, named, files.name)


def _check_other_repositories(source: ModelSource, named: list[NamedCode], name: str) -> None:
    """One commit pins one repository."""
    others = sorted({code.repository for code in named if code.repository} - {source.model})
    if others and source.code_revision is None:
        raise CodeError(
            f"{name}: its configuration names code of another repository, {others[0]}, whose code may change.",
            "Read the code of one commit there, then set `code_revision` to that commit.",
        )
    if len(others) > 1:
        raise CodeError(
            f"{name}: its configuration names code of several other repositories: {', '.join(others)}.",
            "Copy the code into a folder of the model, and correct `auto_map` in its config.json.",
        )
    if source.code_revision is not None and not others:
        raise CodeError(
            f"{name}: `code_revision` is set, and the configuration names no other repository.",
            "Remove `code_revision`.",
        )


@contextmanager
def pinned_code(source: ModelSource) -> Iterator[None]:
    """Load code of other repositories at the commit that the recipe pins, whoever asks for it, and none without a pin.

    Args:
        source: The model that is loaded.
    """
    from transformers import dynamic_module_utils

    dynamic: Any = dynamic_module_utils

    # `code_revision` cannot be an argument of the loaders: sentence-transformers takes it away for its own modules, and
    # transformers would use it for the model's own code, too.
    def pinned(name: Any, module_file: str, **arguments: Any) -> str:
        if str(name) != source.model and not Path(name).is_dir():
            if source.code_revision is None:
                raise CodeError(
                    f"{source.model}: it asks for {module_file} of another repository, {name}, whose code may change.",
                    "Read the code of one commit there, then set `code_revision` to that commit.",
                )
            arguments["revision"] = source.code_revision
        try:
            return str(original(name, module_file, **arguments))
        except OSError as error:
            inside = "Restore that file. Code is read from files next to the model's, not from folders in it."
            raise CodeError(
                f"{source.model}: {module_file} of {name} cannot be read ({in_one_line(error)}).",
                inside
                if Path(name).is_dir()
                else "Download that repository at the pinned commit, or copy the code into a folder of the model and "
                "correct `auto_map` in its config.json.",
            ) from error

    # One model at a time: threads share the function that is replaced.
    with LOADING:
        original, dynamic.get_cached_module_file = dynamic.get_cached_module_file, pinned
        try:
            yield
        finally:
            dynamic.get_cached_module_file = original
            _forget_classes()


def _forget_classes() -> None:
    """Forget which class transformers took for a configuration.

    Folders whose configuration has the same code share its class. The second one would get the model of the first, in
    place of its own code.
    """
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

    for auto in _BaseAutoModelClass.__subclasses__():
        known: dict[Any, type] = getattr(auto._model_mapping, "_extra_content", {})
        for config in [config for config, kind in known.items() if kind.__module__.startswith("transformers_modules.")]:
            del known[config]
