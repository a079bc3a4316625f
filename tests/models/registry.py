"""The builders by name."""

from collections.abc import Callable
from pathlib import Path

Builder = Callable[[Path], None]
MODELS: dict[str, Builder] = {}
LAYOUTS: list[str] = []
"""Names of those models that show a layout of sentence-transformers."""
TRUSTED: list[str] = []
"""Names of those models whose folder holds code, so that they need `trust_remote_code`."""


def model(name: str, *kinds: list[str]) -> Callable[[Builder], Builder]:
    """Register a builder under a name, and the name in lists of a kind."""

    def register(builder: Builder) -> Builder:
        MODELS[name] = builder
        for kind in kinds:
            kind.append(name)
        return builder

    return register


def build(name: str, parent: Path) -> Path:
    """Write a model into a new folder of its name.

    Args:
        name: A key of `MODELS`.
        parent: An existing folder.

    Returns:
        The model's folder.
    """
    folder = parent / name
    folder.mkdir()
    MODELS[name](folder)
    return folder
