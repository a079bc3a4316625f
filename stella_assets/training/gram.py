"""The Gram matrix that losses compare."""

from __future__ import annotations

import torch
from torch import Tensor


def gram(vectors_BD: Tensor) -> Tensor:
    """Cosines `[B, B]` of unit vectors, in float32 at least.

    Also under autocast: bfloat16 steps near 1 are a quarter of the published margin, so rankings would change.

    Args:
        vectors_BD: Unit vectors, of any number format.

    Returns:
        float32, or float64 for vectors in float64.
    """
    # A cast is not enough: inside autocast the product would be cast back to bfloat16.
    with torch.autocast(vectors_BD.device.type, enabled=False):
        exact_BD = vectors_BD.to(torch.promote_types(vectors_BD.dtype, torch.float32))
        return exact_BD @ exact_BD.T
