"""Seeds of named random streams: streams do not disturb one another."""

from __future__ import annotations

from stella_assets.storage.canonical import digest


def seed_of(seed: int, *stream: str) -> int:
    """The seed of a named random stream, from the recipe's seed.

    Args:
        seed: The recipe's.
        stream: What the random numbers are for, from the general to the particular.

    Returns:
        A number below 2^32.

    Example:
        >>> rng = np.random.default_rng(seed_of(recipe.seed, "stage_1", "shuffle"))
    """
    # A digest, not `hash`, which differs between processes; 32 bits, the most that all libraries take.
    return int(digest([seed, *stream])[:8], 16)
