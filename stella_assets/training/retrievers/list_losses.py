"""The key `losses` of a retriever: a mapping from the name of a loss to its weight or its settings.

The model is built from the registry of losses when this module is imported. Losses of installed packages have to be
registered before; `stella_assets.recipe` sees to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import create_model

from stella_assets.core.registry import Registry
from stella_assets.training.retriever_losses import LIST_LOSSES, ListLoss
from stella_assets.training.weighted_losses import WeightedLosses, loss_fields


class ListLossesBase(WeightedLosses):
    """Weights of the losses of a retriever; a number is short for `{weight: number}`, and 0 leaves a loss out."""

    registry: ClassVar[Registry[ListLoss]] = LIST_LOSSES


# mypy cannot see fields that are created at import; the base has all that code uses.
if TYPE_CHECKING:
    ListLosses = ListLossesBase
else:
    ListLosses = create_model(
        "ListLosses", __base__=ListLossesBase, __doc__=ListLossesBase.__doc__, **loss_fields(LIST_LOSSES)
    )
