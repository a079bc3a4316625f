"""Checkpoints inside a stage: atomic, in safetensors, exact enough that a resumed run ends in the same bits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from stella_assets.storage.errors import DamageError
from stella_assets.storage.files import file_digest

DIGESTS = "digests.json"
PREFIX = "checkpoint-"
BEST = "best-"
# A kill while the newest is replaced leaves the other one. It may also fall between a new best checkpoint and the
# ordinary one of that step: the run then resumes from the ordinary one before, which names the best one before.
KEPT = 2
"""Checkpoints that stay: the newest, and the one before it."""


@dataclass
class Progress:
    """How far a stage has come.

    Attributes:
        step: Steps done.
        texts: Texts seen.
        log: One row per measured value.
        best_step: Steps after which the dev loss was lowest.
        best_loss: That loss.
    """

    step: int = 0
    texts: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)
    best_step: int = 0
    best_loss: float = float("inf")


class Checkpoints:
    """The checkpoints of a stage in its scratch folder.

    Args:
        folder: Theirs alone.
        trained: The parameters that train, by name.
        optimizer: Of these parameters.
        average: Their moving averages, if the stage keeps some.
    """

    def __init__(
        self,
        folder: Path,
        trained: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        average: Mapping[str, Tensor] | None,
    ) -> None:
        self.folder = folder
        self._trained = dict(trained)
        self._optimizer = optimizer
        self._average = average

    def save(self, progress: Progress, *, writes: bool = True) -> None:
        """Write a checkpoint, then drop the oldest.

        Args:
            progress: How far the stage has come.
            writes: Whether this process writes. Every process of a run has to call it, and one of them writes.
        """
        # Outside of the `if`: gathering a sharded tensor waits for every process.
        tensors = {
            "model": whole(self._trained.items()),
            "optimizer": whole(optimizer_tensors(self._optimizer, self._trained).items()),
            "average": whole((self._average or {}).items()),
        }
        if writes:
            self._write(PREFIX, progress.step, tensors, asdict(progress))

    def load(self) -> Progress:
        """Go back to the newest checkpoint; without one, to the start.

        Returns:
            The progress that was saved with it.
        """
        newest = self.newest()
        if newest is None:
            return Progress()
        _restore(self._trained, load_file(newest / "model.safetensors"))
        _restore(self._average or {}, load_file(newest / "average.safetensors"))
        for name, tensor in load_file(newest / "optimizer.safetensors").items():
            key, parameter_name = name.split(":", 1)
            parameter = self._trained[parameter_name]
            # Not `load_state_dict`: it numbers the parameters, and names survive a change of their order. AdamW's
            # `step`
            # is a scalar, which FSDP does not shard; the fused kernel needs it on the device of its parameter.
            self._optimizer.state[parameter][key] = (
                tensor.to(parameter.device) if key == "step" else _like(parameter, tensor)
            )
        return Progress(**json.loads((newest / "progress.json").read_text()))

    def save_best(self, step: int, *, writes: bool = True) -> None:
        """Keep the weights as they are as the best so far.

        Args:
            step: Steps after which they were reached.
            writes: Whether this process writes; see `save`.
        """
        tensors = {"model": whole(self._trained.items())}
        if writes:
            self._write(BEST, step, tensors, {"step": step})

    def load_best(self, step: int) -> None:
        """Go back to the best weights.

        Raises:
            DamageError: Their file is not as it was written; the same run again continues from an earlier checkpoint.
        """
        folder = self.folder / f"{BEST}{step:08d}"
        if not _is_whole(folder):
            raise DamageError(f"{folder}: is not as it was written. Run again to train from an earlier step.", folder)
        _restore(self._trained, load_file(self.folder / f"{BEST}{step:08d}" / "model.safetensors"))

    def newest(self) -> Path | None:
        """The newest checkpoint that is whole, with the best weights until then; None where there is none."""
        # Numbers are padded to 8 digits, so names sort as numbers do; drafts begin with a dot and do not match.
        for folder in sorted(self.folder.glob(f"{PREFIX}*"), reverse=True):
            if _is_whole(folder):
                best = json.loads((folder / "progress.json").read_text())["best_step"]
                # A stage that keeps its last weights has no best ones before its end.
                kept = self.folder / f"{BEST}{best:08d}"
                if not kept.exists() or _is_whole(kept):
                    return folder
        return None

    def _write(
        self, kind: str, step: int, tensors: Mapping[str, Mapping[str, Tensor]], progress: Mapping[str, Any]
    ) -> None:
        """All files of a checkpoint or none; then drop the oldest of its kind."""
        final = self.folder / f"{kind}{step:08d}"
        draft = final.with_name(f".{final.name}")
        # A run that was killed while it wrote has left its draft.
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for name, group in tensors.items():
            save_file(dict(group), draft / f"{name}.safetensors")
        (draft / "progress.json").write_text(json.dumps(progress))
        digests = {path.name: file_digest(path) for path in draft.iterdir()}
        (draft / DIGESTS).write_text(json.dumps(digests))
        # A resumed run reaches the step again. A folder cannot be renamed over one that is not empty.
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
        # Only after the rename: a full disk must not cost the checkpoints that are whole.
        for older in sorted(self.folder.glob(f"{kind}*"))[:-KEPT]:
            shutil.rmtree(older)


def _is_whole(folder: Path) -> bool:
    """Whether the files of a checkpoint are as they were written; those of older versions have no digests."""
    try:
        digests = json.loads((folder / DIGESTS).read_text(encoding="utf-8"))
        return {"progress.json", "model.safetensors"} <= digests.keys() and all(
            file_digest(folder / name) == digest for name, digest in digests.items()
        )
    except (OSError, ValueError, AttributeError):
        return False


def optimizer_tensors(optimizer: torch.optim.Optimizer, trained: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The optimiser's state as named tensors, `exp_avg:<parameter>` and so on.

    Args:
        optimizer: Of the parameters.
        trained: The parameters by name.
    """
    # Keyed by the parameter itself: tensors hash by identity.
    names = {parameter: name for name, parameter in trained.items()}
    return {
        f"{key}:{names[cast('nn.Parameter', parameter)]}": torch.as_tensor(value)
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def gathered(tensor: Tensor) -> Tensor:
    """The whole of a tensor that is spread over devices (FSDP)."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """The whole of tensors, on the CPU."""
    return {name: gathered(tensor).detach().cpu().contiguous() for name, tensor in tensors}


def _like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """A tensor where and as the parameter is."""
    tensor = tensor.to(parameter.device)
    if isinstance(parameter, DTensor):
        return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)
    return tensor


@torch.no_grad()
def _restore(tensors: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    # Copied in place: the optimiser and the wrapped model hold these very tensors.
    for name, tensor in saved.items():
        tensors[name].copy_(_like(tensors[name], tensor))
