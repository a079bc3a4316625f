"""Kinds of evaluation tasks, one file per kind. A file in this folder registers itself.

Importing this package does not import mteb: recipes are read without it.
"""

from stella_assets.core.registry import import_kinds
from stella_assets.evaluation.kinds.base import TASK_KINDS, TaskKind, kind_of

import_kinds(__name__, __path__)

__all__ = ["TASK_KINDS", "TaskKind", "kind_of"]
