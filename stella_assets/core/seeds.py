"""Seeds of named random streams: streams do not disturb one another."""

from __future__ import annotations

from stella_assets.core.manifest import digest


def seed_of(seed: int, *stream: str) -> int:
    """The seed of a named random stream, from the recipe's seed."""
    return int(digest([seed, *stream])[:8], 16)
