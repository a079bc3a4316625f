"""Python environments of their own for models whose code does not run on this package's libraries.

An environment is made from pinned requirements, once, and only where a person allowed it.
"""

from stella_assets.core.environments.environments import FLAG, Environment, EnvironmentNotAllowedError, Environments
from stella_assets.core.environments.record import deviations
from stella_assets.core.environments.settings import EnvironmentConfig

__all__ = [
    "FLAG",
    "Environment",
    "EnvironmentConfig",
    "EnvironmentNotAllowedError",
    "Environments",
    "deviations",
]
