"""The three losses of arXiv 2412.19048, section 3.2; one file each.

Shapes: B texts of a batch, D dimensions, P = B (B - 1) / 2 pairs of texts. Vectors are float32 of unit norm, and
`gram_BB` holds their cosines, also under autocast: bfloat16 steps near 1 are a quarter of the published margin.
"""

from stella_assets.training.losses.cosine import cosine_loss
from stella_assets.training.losses.relative_similarity import relative_similarity_loss
from stella_assets.training.losses.similarity import similarity_loss

__all__ = ["cosine_loss", "relative_similarity_loss", "similarity_loss"]
