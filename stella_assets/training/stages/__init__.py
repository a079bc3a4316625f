"""The methods of training, one file each: settings and behaviour. A file in this folder registers itself.

Importing this package does not import torch: recipes are read without it.
"""

from stella_assets.core.registry import import_kinds
from stella_assets.training.stages.base import STAGES, StageConfig

import_kinds(__name__, __path__)

__all__ = ["STAGES", "StageConfig"]
