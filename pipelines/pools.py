"""Pools: how many steps of a kind run at once, over all runs."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from stella_assets.core.config import is_number
from stella_assets.core.errors import UserError

POOLS = ("encoding", "training")
"""Teachers encode in the one, stages train in the other."""


class PoolError(UserError):
    """A limit of a pool that is not possible."""


def set_limits(instance: dg.DagsterInstance, wanted: Sequence[str]) -> dict[str, int | None]:
    """Set limits of pools, and give those of all pools.

    Args:
        instance: Where limits are kept.
        wanted: `POOL=LIMIT` each, e.g. `training=2`.

    Returns:
        The limit of each pool; None for any number of steps.

    Raises:
        PoolError: There is no such pool, or the limit is not a whole number above 0.
    """
    limits = {}
    for words in wanted:
        name, _, limit = words.partition("=")
        if name not in POOLS or not is_number(limit) or int(limit) < 1:
            raise PoolError(
                f"{words}: is not of the form POOL=LIMIT.",
                f"Write e.g. training=2. The pools are {', '.join(POOLS)}.",
            )
        limits[name] = int(limit)
    storage = instance.event_log_storage
    # After all words were read: a mistake in the second one must not leave the first one set.
    for name, slots in limits.items():
        storage.set_concurrency_slots(name, slots)
    # A pool without a limit need not be stored; it is listed all the same.
    found = {pool.name: pool.limit for pool in storage.get_pool_limits()}
    return {name: found.get(name) for name in POOLS}
