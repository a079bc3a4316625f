"""The losses, one file each: settings, tensor function and documentation. A file in this folder registers itself.

Shapes: B texts of a batch, D dimensions, P = B (B - 1) / 2 pairs of texts. Vectors are float32 and of unit norm, and
`gram_BB` holds their cosines, also under autocast: bfloat16 steps near 1 are a quarter of the published margin.

Importing this package does not import torch: recipes are read without it.
"""

from stella_assets.core.registry import import_kinds
from stella_assets.training.losses.base import LOSSES, LossConfig

import_kinds(__name__, __path__)

__all__ = ["LOSSES", "LossConfig"]
