"""Python environments of their own for models whose code does not run on this package's libraries.

An environment is made from pinned requirements, once, and only where a person allowed it.
"""

from stella_assets.core.environments.environments import Environment, EnvironmentNotAllowedError, Environments
from stella_assets.core.environments.settings import EnvironmentConfig

__all__ = ["Environment", "EnvironmentConfig", "EnvironmentNotAllowedError", "Environments"]
