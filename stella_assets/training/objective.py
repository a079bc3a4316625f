"""What a stage minimises: the losses of each head, weighted as the recipe says.

Shapes: B texts of a batch, D dimensions of the teachers together, S dimensions of a Matryoshka head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from stella_assets.students import FULL
from stella_assets.training.dead_losses import Watch
from stella_assets.training.gram import gram
from stella_assets.training.head_losses import HeadLosses, MatryoshkaLosses
from stella_assets.training.targets import Spread, Targets

TEACHERS = "teachers"
# With 1 for both, a loss divides its weight by 1 and takes its margin as it is.
IN_COSINES = Spread(1.0, 1.0)
"""Of losses whose settings are not in units of the teachers' spread."""


@dataclass(frozen=True)
class Objective:
    """The losses of a stage.

    Attributes:
        full_head: Of the full head.
        matryoshka: Of each Matryoshka head that trains, by name.
        matryoshka_targets: What these learn: `teachers`, `full_head`, or both.
    """

    full_head: HeadLosses
    matryoshka: Mapping[str, MatryoshkaLosses] = field(default_factory=dict)
    matryoshka_targets: tuple[str, ...] = (TEACHERS,)

    @property
    def heads(self) -> list[str]:
        """Names of the heads that train, the full one first."""
        return [FULL, *self.matryoshka]

    def constant_loss(self, spread: Spread) -> float:
        """About the loss of a student that gives one vector for every text.

        Args:
            spread: The teachers' spread.
        """
        total = 0.0
        for losses in (self.full_head, *self.matryoshka.values()):
            unit = spread if losses.normalize_by_teacher_std else IN_COSINES
            total += sum(loss.weight / loss.scale(unit) * loss.scale(spread) for loss in losses.losses)
        return total


@dataclass(frozen=True)
class Loss:
    """The weighted sum that is minimised, and each term by name, e.g. `full/cosine`, unweighted."""

    total: Tensor
    terms: dict[str, Tensor]

    def values(self) -> dict[str, float]:
        """The terms and `total`, last, as numbers."""
        numbers = torch.stack([*self.terms.values(), self.total.detach()]).tolist()  # one wait for the device, not many
        return dict(zip([*self.terms, "total"], numbers, strict=True))


def stage_loss(
    objective: Objective, heads: Mapping[str, Tensor], targets: Targets, spread: Spread, watch: Watch | None = None
) -> Loss:
    """The losses of a batch.

    Args:
        objective: Which losses count, and what Matryoshka heads learn.
        heads: Unit vectors of each head that trains, by name.
        targets: The teachers' vectors.
        spread: The teachers' spread, for weights that are given in its units.
        watch: Looks whether each term has a gradient; None for no look.

    Returns:
        The weighted sum, and every term.

    References:
        Zhang et al. 2024, Jasper and Stella, arXiv 2412.19048, sections 2.3 (losses) and 3.1 (weights).
        Kusupati et al. 2022, Matryoshka representation learning, arXiv 2205.13147.
    """
    full_BD = heads[FULL]
    total = full_BD.new_zeros(())
    shown: dict[str, Tensor] = {}

    def add(name: str, losses: HeadLosses, student_BS: Tensor, target: Targets) -> None:
        nonlocal total
        for loss, (factor, term) in _head_terms(losses, spread, student_BS, target).items():
            total = total + factor * term
            if watch is not None:
                watch.look(f"{name}/{loss}", term, student_BS)
            # Without its graph, which would keep the activations alive as long as the term.
            shown[f"{name}/{loss}"] = term.detach()

    add(FULL, objective.full_head, full_BD, targets)
    # Detached: the full head teaches the Matryoshka heads, and must not move towards what they can represent.
    full_head = Targets([full_BD.detach()], [1.0])
    for name, losses in objective.matryoshka.items():
        if TEACHERS in objective.matryoshka_targets:
            add(name, losses, heads[name], targets)
        if "full_head" in objective.matryoshka_targets:
            add(f"{name}/self", losses, heads[name], full_head)
    return Loss(total, shown)


def _head_terms(
    losses: HeadLosses, spread: Spread, student_BS: Tensor, target: Targets
) -> dict[str, tuple[float, Tensor]]:
    """Factor and value of each loss of one head."""
    unit = spread if losses.normalize_by_teacher_std else IN_COSINES
    # Made where a loss needs it, and once: B x B x D products that a stage with vector losses alone can save.
    gram_BB: Tensor | None = None
    terms: dict[str, tuple[float, Tensor]] = {}
    for loss in losses.losses:
        match loss.compares:
            case "vectors":
                value = loss.value(student_BS, target.vectors, unit)
            case "similarities":
                gram_BB = gram(student_BS) if gram_BB is None else gram_BB
                value = loss.value(gram_BB, target.gram, unit)
            case "pairs":
                # A head that teaches another one has no pairs of its own; these are the teachers' already.
                if target.pairs is None:
                    continue
                value = loss.value(student_BS, target, unit)
            case "nothing":
                value = loss.value(student_BS, None, unit)
        terms[loss.loss] = loss.weight / loss.scale(unit), value
    return terms
