"""The engine `local`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from stella_assets.core.engine.base import ENGINES, Engine, R, U, Worker

if TYPE_CHECKING:
    from stella_assets.core.devices import Compute


@ENGINES.register
class LocalEngine(Engine):
    """Computes in this process, one unit after another."""

    kind: Literal["local"] = "local"

    @property
    def workers(self) -> int:
        """One."""
        return 1

    def run(self, worker: Worker[U, R], units: Iterable[U], compute: Compute) -> Iterator[R]:
        """Compute units in this process; see `Engine.run`."""
        compute_unit = None
        for unit in units:
            # Opened with the first unit: without work to do, no model is loaded.
            compute_unit = compute_unit or worker.open(compute)
            yield compute_unit(unit)
