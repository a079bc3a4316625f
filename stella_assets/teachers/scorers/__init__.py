"""Scorers of pairs: what a model, a service or the store thinks of a query with a document."""

from stella_assets.teachers.scorers import kinds  # noqa: F401 (registers them)
from stella_assets.teachers.scorers.base import PAIR_SCORERS, PairScorerConfig, Scored, Scoring

__all__ = ["PAIR_SCORERS", "PairScorerConfig", "Scored", "Scoring"]
