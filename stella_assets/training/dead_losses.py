"""A loss that has a weight and teaches nothing stops its stage."""

from __future__ import annotations

import torch
from torch import Tensor

from stella_assets.core.errors import UserError

DEAD_STEPS = 20
"""Steps at the beginning of a stage, in one of which each loss has to have a gradient."""


class DeadLossError(UserError):
    """A loss whose gradient was zero, or whose value did not depend on the student, for all of the first steps."""


class Watch:
    """Looks at the gradient of each loss by the student's vectors until it is not zero.

    Later a loss may reach zero, as a hinge does, so only the beginning of a stage is watched. A loss with a gradient is
    not looked at again, so a stage pays for this once.

    Args:
        step: The step that the stage continues from. One that is past the first steps watches nothing.
    """

    def __init__(self, step: int) -> None:
        self._seen: set[str] = set()
        self._alive: set[str] = set()
        self._left = DEAD_STEPS if step < DEAD_STEPS else 0

    def look(self, name: str, term: Tensor, vectors_BD: Tensor) -> None:
        """Look at a term of the loss, which keeps its graph.

        Args:
            name: Of the term.
            term: A scalar.
            vectors_BD: What the term was computed from.
        """
        if not self._left or name in self._alive or not vectors_BD.requires_grad:
            return
        self._seen.add(name)
        if not term.requires_grad:
            return
        (gradient,) = torch.autograd.grad(term, vectors_BD, retain_graph=True, allow_unused=True)
        if gradient is not None and bool(gradient.any()):
            self._alive.add(name)

    def require_alive(self, stage: str) -> None:
        """Count a step.

        Args:
            stage: Name of the stage.

        Raises:
            DeadLossError: With this step a loss had no gradient for all of the first steps; the message names it.
        """
        if not self._left:
            return
        self._left -= 1
        if not self._left and (dead := sorted(self._seen - self._alive)):
            raise DeadLossError(
                f"{stage}: {dead[0]} has a weight, and its gradient was zero in each of the first {DEAD_STEPS} steps: "
                "it teaches nothing.",
                "Remove this loss, or look at its settings and at the data that it needs, e.g. pairs with a score.",
            )
