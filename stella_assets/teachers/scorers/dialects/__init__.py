"""The dialects of reranking services, one file each. A file in this folder registers itself."""

from stella_assets.core.registry import import_kinds
from stella_assets.teachers.scorers.dialects.base import RERANK_DIALECTS, RerankService

import_kinds(__name__, __path__)

__all__ = ["RERANK_DIALECTS", "RerankService"]
