"""The engine `processes`: one process per device."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PrivateAttr

from stella_assets.core.engine.base import ENGINES, Engine, R, U, Worker
from stella_assets.core.engine.local import LocalEngine

if TYPE_CHECKING:
    from stella_assets.core.devices import Compute


@ENGINES.register
class ProcessesEngine(Engine):
    """Computes in several processes of this machine, one per device.

    A process keeps what its worker has loaded until it gets another worker. Threads of the CPU are divided among the
    processes. A process that dies fails its unit; what was committed before stays.
    """

    kind: Literal["processes"] = "processes"
    devices: tuple[str, ...] = Field(
        min_length=1, description="one process each, e.g. `[cuda:0, cuda:1]` or `[cpu, cpu]`"
    )

    _pools: list[ProcessPoolExecutor] = PrivateAttr(default_factory=list)

    @property
    def workers(self) -> int:
        """One per device."""
        return len(self.devices)

    def run(self, worker: Worker[U, R], units: Iterable[U], compute: Compute) -> Iterator[R]:
        """Compute units in the processes, at most one per process at a time; see `Engine.run`."""
        pools = self._start(compute)
        # A first-in first-out queue keeps the order of results and bounds the units in memory to one per process.
        running: deque[tuple[ProcessPoolExecutor, Future[R]]] = deque()
        free = deque(pools)
        for unit in units:
            if not free:
                pool, done = running.popleft()
                yield done.result()
                free.append(pool)
            pool = free.popleft()
            running.append((pool, pool.submit(_compute_unit, worker, unit)))
        while running:
            yield running.popleft()[1].result()

    def close(self) -> None:
        """End the processes."""
        for pool in self._pools:
            # After an error, units that no process has begun are not computed.
            pool.shutdown(cancel_futures=True)
        self._pools.clear()

    def _start(self, compute: Compute) -> list[ProcessPoolExecutor]:
        """Processes with a device each. They are spawned: a forked one would inherit torch's and Lance's threads."""
        if not self._pools:
            threads = max(1, compute.threads // len(self.devices))
            context = multiprocessing.get_context("spawn")
            for device in self.devices:
                own = replace(compute, device_name=device, threads=threads, engine=LocalEngine())
                # One pool of one process per device: a shared pool would not say which process takes a unit.
                self._pools.append(ProcessPoolExecutor(1, context, _begin, (own,)))
        return self._pools


# Class attributes stand for globals of the child process: the executor passes only the unit's arguments.
class _Process:
    """What a process of the engine keeps between two units."""

    compute: Any = None
    worker: Any = None
    compute_unit: Callable[[Any], Any] | None = None


def _begin(compute: Compute) -> None:
    _Process.compute = compute
    compute.limit_threads()


def _compute_unit(worker: Worker[U, R], unit: U) -> R:
    # By value, not identity: each submit unpickles a new copy of the same worker.
    if _Process.compute_unit is None or _Process.worker != worker:
        _Process.worker, _Process.compute_unit = worker, worker.open(_Process.compute)
    return _Process.compute_unit(unit)
