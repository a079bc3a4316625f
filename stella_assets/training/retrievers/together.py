"""Several processes that share the batches of a retriever.

Not `DistributedDataParallel`: it adds gradients up in every backward pass, and here each process has passes of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Together:
    """This process among those that train together.

    Args:
        state: Of the processes: accelerate's `PartialState`.
    """

    def __init__(self, state: Any) -> None:
        self._rank, self._count, self._device = state.process_index, state.num_processes, state.device

    def share(self, rows: int) -> range:
        """Which of some rows this process passes through the model: every n-th, as those of a task follow one another.

        Args:
            rows: How many there are.
        """
        return range(self._rank, rows, self._count)

    def gather(self, own: Sequence[Tensor], rows: int) -> list[Tensor]:
        """The outputs of all rows, of which each process has computed its own.

        Args:
            own: Of the rows of this process.
            rows: How many there are.
        """
        parts: list[Any] = [None] * self._count
        # As objects: outputs differ in length, and their sizes would have to be sent first.
        torch.distributed.all_gather_object(parts, [output.cpu() for output in own])
        return [parts[row % self._count][row // self._count].to(self._device) for row in range(rows)]

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give each parameter the sum of the gradients that the processes have for it.

        Args:
            parameters: In the same order in every process. One without a gradient in all of them gets none.
        """
        has = torch.tensor([float(p.grad is not None) for p in parameters], device=self._device)
        torch.distributed.all_reduce(has)
        # A sum for each parameter and not one for all of them, which would take as much memory again.
        for parameter, processes in zip(parameters, has.tolist(), strict=True):
            if processes:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                torch.distributed.all_reduce(parameter.grad)
