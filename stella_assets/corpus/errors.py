"""What people can get wrong about texts."""

from __future__ import annotations

from stella_assets.core.errors import UserError


class SourceError(UserError):
    """A source cannot be read, or more of it is malformed than the recipe allows."""


class EvaluationSetError(UserError):
    """An evaluation set cannot be read."""


class EmptyCorpusError(UserError):
    """No texts, or no training texts, are left of the sources."""


class LanguageError(UserError):
    """The recipe keeps a language that cannot be detected."""


class MissingExtraError(UserError):
    """The recipe asks for what an optional package does, and the package is not installed."""
