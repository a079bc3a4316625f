"""The dialects of embedding services, one file each: settings, exact requests, answers, errors and limits.

A file in this folder registers itself.
"""

from stella_assets.core.registry import import_kinds
from stella_assets.teachers.api.dialects.base import DIALECTS, Dialect
from stella_assets.teachers.api.service import Request

import_kinds(__name__, __path__)

__all__ = ["DIALECTS", "Dialect", "Request"]
