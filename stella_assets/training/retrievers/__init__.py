"""The kinds of retrievers, one file each: settings and behaviour. A file in this folder registers itself.

Importing this package does not import torch: recipes are read without it.

Shapes: B lists of a batch, C candidates of a list, M documents of a batch, T tokens, D dimensions.
"""

from stella_assets.core.registry import import_kinds
from stella_assets.training.retrievers.base import RETRIEVERS, RetrieverConfig

import_kinds(__name__, __path__)

__all__ = ["RETRIEVERS", "RetrieverConfig"]
