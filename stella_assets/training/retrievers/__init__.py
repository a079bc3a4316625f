"""Retrievers: further students, which learn from lists of candidates.

Shapes: B lists of a batch, C candidates of a list, M documents of a batch, T tokens, D dimensions.
"""

from stella_assets.training.retrievers import kinds  # noqa: F401 (registers them)
from stella_assets.training.retrievers.base import RETRIEVERS, RetrieverConfig

__all__ = ["RETRIEVERS", "RetrieverConfig"]
