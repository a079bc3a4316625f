"""Which libraries would run a model that those of this package do not run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from stella_assets.core.config import ModelSource
from stella_assets.core.environments.interpreters import OWN_VERSION
from stella_assets.core.errors import UserError
from stella_assets.core.models.source import CONFIG, ST_CONFIG, ModelFiles, in_one_line

ENCODER = "sentence-transformers"
VERSION = re.compile(r"\d+(\.\d+)+")
# transformers looks at the imports of a model's code before it runs it.
NOT_FOUND = re.compile(r"not found in your environment: ([\w, ]+)\.")
NO_MODULE = re.compile(r"No module named '(\w+)")
DISTRIBUTIONS = {"flash_attn": "flash-attn", "sklearn": "scikit-learn", "PIL": "pillow", "yaml": "pyyaml"}
"""Packages whose name is not that of what is imported."""
RESTORE_OR_CORRECT = "Restore the model's files, or correct `model_kwargs`."
OLD_CODE = (AttributeError, ImportError, NameError, TypeError)
"""What code raises that was written for other libraries."""


class LoadError(UserError):
    """A model that the installed libraries cannot load, or not run."""


@contextmanager
def explained_code(source: ModelSource) -> Iterator[None]:
    """Tell which libraries would run a model's own code, where it fails while it computes.

    Args:
        source: The model. An error of a model without code of its own is a bug, and stays as it is.

    Raises:
        LoadError: In place of an error that code for other libraries raises.
    """
    try:
        yield
    except (*OLD_CODE, RuntimeError) as error:
        # What code computes outside of a module's attributes is lost while it is loaded, and found without data here.
        if not source.trust_remote_code or (isinstance(error, RuntimeError) and "meta" not in str(error)):
            raise
        raise load_error(ModelFiles(source), error) from error


def is_of_model(source: ModelSource, error: Exception) -> bool:
    """Whether an error while a model is loaded is its files' or its code's, and no bug of this package.

    Args:
        source: The model. Code of its own may raise anything.
        error: What was raised.
    """
    import pickle

    import torch
    from huggingface_hub.errors import StrictDataclassError  # a value of config.json of another type

    if isinstance(error, UserError | torch.OutOfMemoryError):
        return False
    of_libraries = (OSError, RuntimeError, ValueError, LookupError, ArithmeticError, StrictDataclassError, *OLD_CODE)
    return source.trust_remote_code or isinstance(error, (*of_libraries, pickle.UnpicklingError))


def load_error(files: ModelFiles, error: Exception, otherwise: str = RESTORE_OR_CORRECT) -> LoadError:
    """What to say of a model that fails on the installed libraries.

    Args:
        files: Of the model.
        error: What the libraries or the model's code raised.
        otherwise: The remedy for a model without code of its own.
    """
    return LoadError(
        f"{files.name}: the installed libraries cannot run this model ({in_one_line(error)}).",
        libraries_remedy(files, error, otherwise),
    )


def libraries_remedy(files: ModelFiles, error: Exception, otherwise: str) -> str:
    """The environment that would run a model with code of its own.

    Args:
        files: Of the model.
        error: What the libraries or the model's code raised.
        otherwise: The remedy for a model without code of its own.

    Returns:
        What to write into the recipe, as far as the model's files tell.
    """
    missing = _missing(str(error))
    if not files.source.trust_remote_code and not missing:
        return otherwise
    named = _named_versions(files)
    # Only for versions before ours: an environment does not run a model's own code on transformers 5.
    if int(named.get("transformers", "5").split(".")[0]) >= 5:
        if missing:
            return f"If you trust them, install {', '.join(missing)} where this package is installed."
        return "Use the libraries that the model's authors name; docs/environments.md says how a teacher can have them."
    # The encoder needs it, also where the files do not say which.
    wanted = [f"{name}=={version}" if version else name for name, version in {ENCODER: "", **named}.items()] + missing
    compile_them = f"uv pip compile --generate-hashes --python-version {OWN_VERSION} libraries.in -o libraries.txt"
    return (
        f"Its files ask for {', '.join(wanted)}. As a teacher it can have an environment with these: write them into "
        f"libraries.in, one a line, run `{compile_them}`, and give the teacher "
        f'`environment: {{requirements: libraries.txt, python: "{OWN_VERSION}"}}`; see docs/environments.md.'
    )


def _missing(error: str) -> list[str]:
    """Packages that an error says are not installed."""
    listed = NOT_FOUND.search(error)
    names = listed[1].split(", ") if listed else NO_MODULE.findall(error)
    return [DISTRIBUTIONS.get(name, name) for name in names]


def _named_versions(files: ModelFiles) -> dict[str, str]:
    """The libraries that a model was saved with, as its files say."""
    config, own = files.read(files.in_encoder(CONFIG)) or {}, files.read(ST_CONFIG) or {}
    saved_with = own.get("__version__") or {}
    versions = {
        "transformers": config.get("transformers_version") or saved_with.get("transformers"),
        ENCODER: saved_with.get("sentence_transformers"),
    }
    # A development version such as 4.42.0.dev0 is on no index.
    found = {name: VERSION.match(str(version)) for name, version in versions.items()}
    return {name: match[0] for name, match in found.items() if match}
