"""The gradient of one batch: over several processes, and with bounded memory, still that of the whole batch's loss.

Shapes: B texts of a batch, D dimensions of a head.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from stella_assets.students import FULL
from stella_assets.training.data import Batch
from stella_assets.training.dead_losses import Watch
from stella_assets.training.objective import Loss, Objective, stage_loss
from stella_assets.training.targets import Spread


class Gradients:
    """Puts batches through the student, and the gradient of their loss into its parameters.

    Args:
        accelerator: Knows the processes of the run.
        model: The student, as the accelerator wrapped it.
        objective: The losses.
        part: The dimensions of the full head that belong to the stage's teachers; None for all.
        spread: The teachers' spread.
        states_NH: Pooled states of the training texts, where a frozen encoder has computed them already.
        in_parts: Whether the activations of one group of texts at a time are in memory.

    Attributes:
        watch: Looks whether each loss has a gradient; None for no look.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: Any,
        objective: Objective,
        part: Tensor | None,
        spread: Spread,
        states_NH: np.ndarray | None,
        *,
        in_parts: bool = False,
    ) -> None:
        self._accelerator, self._model = accelerator, model
        self._objective, self._heads, self._part, self._spread = objective, objective.heads, part, spread
        self._states_NH = states_NH
        self.watch: Watch | None = None
        # Heads on known states have next to no activations, so there is nothing to save.
        self._in_parts = in_parts and states_NH is None

    def project(self, batch: Batch) -> dict[str, Tensor]:
        """Unit vectors of this process's share of the batch, by head.

        Args:
            batch: With tokens, or of training texts whose pooled states are known.

        Returns:
            `[share, D]` float32 per head, in the order of the batch.
        """
        # Dev batches have groups also where the encoder is frozen: known states are of training texts only.
        if self._states_NH is not None and not batch.groups:
            states_BH = torch.from_numpy(self._states_NH[batch.positions_B[batch.share]])
            return dict(self._model(states_BH.to(self._accelerator.device), self._heads, self._part))
        heads = self._model(batch.groups, self._heads, self._part)
        return {head: vectors[batch.places] for head, vectors in heads.items()}

    def backward(self, batch: Batch) -> Loss:
        """Add the gradient of the batch's loss to the parameters.

        Args:
            batch: The whole batch, of which this process has its share of tokens.

        Returns:
            The loss of the whole batch; the same in every process.
        """
        if self._in_parts:
            return self._backward_in_parts(batch)
        loss = self._loss(self.project(batch), batch)
        self._accelerator.backward(loss.total * self._accelerator.num_processes)
        return loss

    def _loss(self, heads: dict[str, Tensor], batch: Batch) -> Loss:
        """The loss of the whole batch; its gradient reaches this process's share.

        Every process has the same loss, and its gradient by its own texts alone. The mean of the processes' gradients,
        which is what DDP and FSDP make, is the whole gradient divided by their number: hence the factor in `backward`.
        """
        everyone = {head: self._gather(vectors, batch) for head, vectors in heads.items()}
        targets = batch.targets.to(self._accelerator.device)
        return stage_loss(self._objective, everyone, targets, self._spread, self.watch)

    def _gather(self, own_BD: Tensor, batch: Batch) -> Tensor:
        """The vectors of all processes in the order of the batch; gradients flow only into this process's own."""
        if self._accelerator.num_processes == 1:
            return own_BD
        # Not `torch.distributed.nn.all_gather`, whose backward pass sums the gradients of all processes. `gather` needs
        # equal sizes and gives no gradient, so others' parts are constants.
        largest = -(-len(batch.positions_B) // self._accelerator.num_processes)
        padded = torch.nn.functional.pad(own_BD.detach(), (0, 0, 0, largest - len(own_BD)))
        parts = self._accelerator.gather(padded).split(largest)
        # The bounds of `Reading.share`.
        bounds = [len(batch.positions_B) * n // len(parts) for n in range(len(parts) + 1)]
        kept = [part[: end - start] for part, start, end in zip(parts, bounds, bounds[1:], strict=False)]
        # With its graph, in place of the copy that came back without one.
        kept[self._accelerator.process_index] = own_BD
        return torch.cat(kept)

    def _backward_in_parts(self, batch: Batch) -> Loss:
        """The same gradient with the activations of one group at a time in memory.

        Once through the encoder for the vectors, once more for the gradient (Gao et al. 2021, arXiv 2101.06983): the
        losses compare all texts of a batch with one another, so they are not a sum over its parts.
        """
        with torch.no_grad():
            parts = [self._model([group], self._heads, self._part) for group in batch.groups]
        # Vectors of the batch as leaves: their gradient is small, `[B, D]`, and ends the first half of the chain rule.
        leaves = {head: torch.cat([part[head] for part in parts]).requires_grad_() for head in self._heads}
        loss = self._loss({head: leaf[batch.places] for head, leaf in leaves.items()}, batch)
        # Not `accelerator.backward`: no parameter takes part yet, so there is nothing to exchange.
        (loss.total * self._accelerator.num_processes).backward()
        sizes = [len(part[FULL]) for part in parts]
        slopes = {head: cast("Tensor", leaf.grad).split(sizes) for head, leaf in leaves.items()}
        for number, group in enumerate(batch.groups):
            last = number == len(batch.groups) - 1
            # Gradients add up locally and are exchanged once, with the last group. There is no dropout, so the second
            # pass gives the vectors that the slopes were taken at.
            with nullcontext() if last else self._accelerator.no_sync(self._model):
                heads = self._model([group], self._heads, self._part)
                torch.autograd.backward([heads[h] for h in self._heads], [slopes[h][number] for h in self._heads])
        return loss
