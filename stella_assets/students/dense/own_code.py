"""Saving an encoder whose code came with the base model, so that other programs load what was trained and scored.

transformers 5 constructs a model without data. What the code computes in `__init__` and does not save, e.g. a table of
rotary positions, is then lost where the program that loads it does not know better. So the saved folder has a class of
a few lines more, which keeps such buffers in the checkpoint; every version of transformers reads them from there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

DYNAMIC = "transformers_modules."
"""The package that transformers imports a model's own code into."""
WRAPPER_FILE = "modeling_with_buffers.py"
WRAPPER = '''"""The model of {module}.py, with all its buffers in the checkpoint."""

from .{module} import {name} as Original


class {name}(Original):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for module in self.modules():
            module._non_persistent_buffers_set.clear()
'''


def save_encoder(model: Any, folder: Path) -> None:
    """Write a transformers model, with the code that came with it.

    Args:
        model: The encoder. Its buffers count as saved ones from now on, if its code came with it.
        folder: Created where it does not exist.
    """
    own = type(model).__module__.startswith(DYNAMIC)
    kept = own and _keep_buffers(model)
    model.save_pretrained(folder)
    if not own:
        return
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # Code of the time of transformers 4 reads the former name, and would set the present one to null.
    if config.get("rope_parameters"):
        config["rope_scaling"] = config.pop("rope_parameters")
    if kept:
        module = type(model).__module__.rpartition(".")[2]
        wrapper = WRAPPER.format(module=module, name=type(model).__name__)
        (folder / WRAPPER_FILE).write_text(wrapper, encoding="utf-8")
        config["auto_map"]["AutoModel"] = f"{Path(WRAPPER_FILE).stem}.{type(model).__name__}"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _keep_buffers(model: nn.Module) -> bool:
    """Have all buffers saved from now on; whether there were any that were not."""
    found = False
    for module in model.modules():
        for name in sorted(module._non_persistent_buffers_set):
            found = True
            # A copy: a buffer may be a view, which the format of checkpoints does not take.
            if (value := module._buffers[name]) is not None:
                module._buffers[name] = value.clone().contiguous()
        module._non_persistent_buffers_set.clear()
    return found
