"""The losses, one file each: the three of arXiv 2412.19048, section 3.2, and two to compare with.

Shapes: B texts of a batch, D dimensions, P = B (B - 1) / 2 pairs of texts. Vectors are float32 of unit norm, and
`gram_BB` holds their cosines, also under autocast: bfloat16 steps near 1 are a quarter of the published margin.
"""

from stella_assets.training.losses.angular import angular_loss
from stella_assets.training.losses.cosine import cosine_loss
from stella_assets.training.losses.gram import gram
from stella_assets.training.losses.l2 import l2_loss
from stella_assets.training.losses.relative_similarity import relative_similarity_loss
from stella_assets.training.losses.similarity import similarity_loss

__all__ = ["angular_loss", "cosine_loss", "gram", "l2_loss", "relative_similarity_loss", "similarity_loss"]
