"""Changing the files of small models, as people and broken downloads do."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"


def change_json(path: Path, **changes: Any) -> None:
    """Replace values of a JSON object; None removes a key."""
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}), encoding="utf-8")


def change_weights(path: Path, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """Write the tensors that `change` makes of those in a file."""
    tensors = load_file(path)
    save_file({name: tensor.contiguous() for name, tensor in change(tensors).items()}, path, metadata={"format": "pt"})


def truncate(path: Path, part: float = 0.6) -> None:
    """Keep the first part of a file, as a broken download does."""
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
