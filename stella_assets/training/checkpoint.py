"""Checkpoints inside a stage: atomic, in safetensors, exact enough that a resumed run ends in the same bits."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn

PREFIX = "checkpoint-"


@dataclass(frozen=True)
class Progress:
    """How far a stage has come: steps done, and the log so far."""

    step: int
    log: list[dict[str, Any]]


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: dict[nn.Parameter, str]) -> dict[str, torch.Tensor]:
    """The optimiser's state as named tensors, `exp_avg:<parameter>` and so on."""
    return {
        f"{key}:{names[cast('nn.Parameter', parameter)]}": torch.as_tensor(value).detach().cpu().contiguous()
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def save_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write a checkpoint of what trains, then drop the one before it."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    final = folder / f"{PREFIX}{progress.step:08d}"
    draft = folder / f".{final.name}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    save_file({name: p.detach().cpu().contiguous() for name, p in trained.items()}, draft / "model.safetensors")
    names = {p: name for name, p in trained.items()}
    save_file(optimizer_tensors(optimizer, names), draft / "optimizer.safetensors")
    (draft / "progress.json").write_text(json.dumps({"step": progress.step, "log": progress.log}))
    draft.rename(final)
    for older in folder.glob(f"{PREFIX}*"):
        if older != final:
            shutil.rmtree(older)


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Go back to the newest checkpoint; without one, to the start."""
    found = sorted(folder.glob(f"{PREFIX}*"))
    if not found:
        return Progress(0, [])
    newest = found[-1]
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in load_file(newest / "model.safetensors").items():
            parameters[name].copy_(tensor)
    for name, tensor in load_file(newest / "optimizer.safetensors").items():
        key, parameter = name.split(":", 1)
        on_device = tensor if key == "step" else tensor.to(parameters[parameter].device)
        optimizer.state[parameters[parameter]][key] = on_device
    progress = json.loads((newest / "progress.json").read_text())
    return Progress(progress["step"], progress["log"])
