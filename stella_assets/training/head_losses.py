"""The losses of a head as a recipe writes them: a mapping from the name of a loss to its weight or its settings.

The models are built from the registry of losses when this module is imported. Losses of installed packages have to be
registered before; `stella_assets.recipe` sees to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, Discriminator, Field, Tag, create_model

from stella_assets.core.config import Positive, is_number
from stella_assets.core.registry import Registry
from stella_assets.training.losses import LOSSES, LossConfig
from stella_assets.training.weighted_losses import WeightedLosses, loss_fields


class HeadLossesBase(WeightedLosses):
    """Weights of the losses of a head; a number is short for `{weight: number}`, and 0 leaves a loss out.

    The published weights are those of arXiv 2412.19048, section 3.1.
    """

    registry: ClassVar[Registry[LossConfig]] = LOSSES

    normalize_by_teacher_std: bool = Field(
        False, description="weights and margins count in units of the teachers' own similarity spread, not of cosine"
    )

    @property
    def losses(self) -> list[LossConfig]:
        """The losses that count, in the order in which they are summed."""
        return self.weighted()


def _refuse(loss: LossConfig | None) -> None:
    # Returns None, which then is the value: the field exists to say why a loss cannot be given here.
    if loss is not None:
        raise ValueError(
            f"{loss.loss} compares vectors of equal dimensions, and a Matryoshka head has other dimensions than the "
            "teachers; remove it, or take a loss that compares similarities"
        )


# mypy cannot see fields that are created at import; the base has all that code uses.
if TYPE_CHECKING:
    HeadLosses = HeadLossesBase
    MatryoshkaLosses = HeadLossesBase
else:
    HeadLosses = create_model(
        "HeadLosses",
        __base__=HeadLossesBase,
        __doc__=HeadLossesBase.__doc__,
        **loss_fields(LOSSES),
    )
    MatryoshkaLosses = create_model(
        "MatryoshkaLosses",
        __base__=HeadLosses,
        __doc__="Weights of the losses of a Matryoshka head; only losses that compare similarities.",
        **loss_fields(
            LOSSES,
            *(name for name in LOSSES.names() if LOSSES[name].compares == "vectors"),
            validators=(AfterValidator(_refuse),),
        ),
    )


def _each_or_by_dimension(raw: Any) -> str:
    # YAML gives dimensions as integers, JSON as text; no loss has a number for a name.
    keyed = isinstance(raw, dict) and raw and all(is_number(str(key)) for key in raw)
    return "by_dimension" if keyed else "each"


MatryoshkaHeads = Annotated[
    Annotated[MatryoshkaLosses, Tag("each")] | Annotated[dict[Positive, MatryoshkaLosses], Tag("by_dimension")],
    Discriminator(_each_or_by_dimension),
]
"""Losses of every Matryoshka head, or by dimension."""
