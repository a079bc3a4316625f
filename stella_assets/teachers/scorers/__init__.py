"""Kinds of scorers of pairs, one file per kind: its settings, and how it scores a query with a document.

A file in this folder registers itself. A third party adds a kind from an installed package: a module that registers a
class with `PAIR_SCORERS`.
"""

from stella_assets.core.registry import import_kinds
from stella_assets.teachers.scorers.base import PAIR_SCORERS, PairScorerConfig, Scored, Scoring

import_kinds(__name__, __path__)

__all__ = ["PAIR_SCORERS", "PairScorerConfig", "Scored", "Scoring"]
