"""From gradients to weights: parameter groups, learning rates, and the moving average."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from stella_assets.students.dense.model import DenseStudent
from stella_assets.training.stages.descent import Descent


class Schedule(Protocol):
    """How a learning rate rises and falls."""

    @property
    def warmup(self) -> float:
        """Share of the steps in which it rises."""

    @property
    def schedule(self) -> Literal["cosine", "linear", "constant"]:
        """How it falls after that."""

    @property
    def min_lr_ratio(self) -> float:
        """Share of the peak that it ends with."""


def learning_rate_factor(stage: Schedule, step: int, steps: int) -> float:
    """Share of the peak at a step: a linear rise, then the stage's schedule down to `min_lr_ratio`.

    Args:
        stage: Its warmup, schedule and `min_lr_ratio`.
        step: Counting from 0.
        steps: Steps in all.

    Returns:
        A factor in (0, 1].

    References:
        Loshchilov and Hutter 2017, SGDR, arXiv 1608.03983, eq. 5: the cosine, here without restarts.
    """
    # Not a scheduler of torch: it would have a state of its own to save, and a resumed run needs none.
    rise = max(1, round(stage.warmup * steps))
    if step < rise:
        return (step + 1) / rise  # the first step already moves, and the last of the rise is at the peak
    progress = (step - rise) / max(1, steps - rise)
    match stage.schedule:
        case "constant":
            return 1.0
        case "linear":
            left = 1 - progress
        case "cosine":
            left = (1 + math.cos(math.pi * progress)) / 2
    return stage.min_lr_ratio + (1 - stage.min_lr_ratio) * left


def make_optimizer(student: DenseStudent, stage: Descent) -> torch.optim.AdamW:
    """AdamW over what trains of a student; see `adamw`.

    Args:
        student: Those of its parameters that take a gradient are trained.
        stage: Its learning rates and weight decay.
    """
    in_heads = {id(parameter) for parameter in student.heads.parameters()}
    groups = [
        ([p for p in student.parameters() if p.requires_grad and (id(p) in in_heads) == heads], rate)
        for heads, rate in ((False, stage.learning_rate), (True, stage.head_learning_rate or stage.learning_rate))
    ]
    return adamw(groups, stage.weight_decay)


def adamw(groups: Iterable[tuple[Sequence[nn.Parameter], float]], weight_decay: float) -> torch.optim.AdamW:
    """AdamW with one group per learning rate; biases and normalisation scales do not decay.

    Args:
        groups: Parameters and their learning rate.
        weight_decay: Of the others.

    References:
        Loshchilov and Hutter 2019, Decoupled weight decay regularization, arXiv 1711.05101.
    """
    made = []
    for members, rate in groups:
        for decays in (True, False):
            # Biases and scales are the vectors among the parameters, whatever an architecture calls them.
            parameters = [p for p in members if (p.ndim > 1) == decays]
            if parameters:
                # `lr` changes at every step; `peak` is what it is a share of.
                decay = weight_decay if decays else 0.0
                made.append({"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay})
    # Fused: one kernel for many parameters, instead of several small ones for each.
    return torch.optim.AdamW(made, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group to its share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


class Average:
    """Exponential moving average of the weights that train (Polyak averaging).

    The decay grows to `decay` over the first steps, so that the average does not stay at the start:
    `min(decay, (1 + n) / (10 + n))` after n steps.

    Args:
        decay: In (0, 1).
        parameters: Those that train, by name.

    References:
        Polyak and Juditsky 1992, Acceleration of stochastic approximation by averaging, SIAM J. Control Optim. 30(4).
    """

    def __init__(self, decay: float, parameters: Mapping[str, nn.Parameter]) -> None:
        self._decay = decay
        self._parameters = dict(parameters)
        self.tensors: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Take in the weights after `steps` steps."""
        decay = min(self._decay, (1 + steps) / (10 + steps))
        current = [p.detach() for p in self._parameters.values()]
        # average += (1 - decay) (weights - average), for all tensors in one call.
        torch._foreach_lerp_(list(self.tensors.values()), current, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The student has the averaged weights inside the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    # In place: the optimiser, DDP and FSDP hold the parameters themselves, so their objects have to stay.
    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            kept = parameter.detach().clone()
            parameter.copy_(self.tensors[name])
            self.tensors[name].copy_(kept)
