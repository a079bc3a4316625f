"""The losses of retrievers, one file each. A file in this folder registers itself.

Shapes: B lists of a batch, C candidates of a list, M documents of a batch.
"""

from stella_assets.core.registry import import_kinds
from stella_assets.training.retriever_losses.base import LIST_LOSSES, ListLoss

import_kinds(__name__, __path__)

__all__ = ["LIST_LOSSES", "ListLoss"]
