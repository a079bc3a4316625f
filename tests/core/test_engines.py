"""Every engine gives the same results in the same order, and reports what a worker refuses."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from stella_assets.core.devices import Compute
from stella_assets.core.engine import Engine, LocalEngine, ProcessesEngine
from stella_assets.core.errors import UserError

COMPUTE = Compute("cpu", threads=2)


@dataclass(frozen=True)
class Square:
    """Squares numbers, and says in which process and with how many threads."""

    refused: int = -1

    def open(self, compute: Compute) -> Callable[[int], tuple[int, int, int]]:
        def compute_unit(unit: int) -> tuple[int, int, int]:
            if unit == self.refused:
                raise UserError(f"unit {unit}: cannot be squared.", "Take another one.")
            return unit**2, os.getpid(), compute.threads

        return compute_unit


@pytest.fixture(params=["local", "processes"])
def engine(request: pytest.FixtureRequest):
    engine: Engine = LocalEngine() if request.param == "local" else ProcessesEngine(devices=("cpu", "cpu"))
    yield engine
    engine.close()


def test_results_come_in_the_order_of_the_units(engine: Engine):
    results = list(engine.run(Square(), iter(range(7)), COMPUTE))
    assert [square for square, _, _ in results] == [n**2 for n in range(7)]
    assert len({process for _, process, _ in results}) == engine.workers
    assert {threads for *_, threads in results} == {2 // engine.workers}


def test_what_a_worker_refuses_is_reported_with_its_remedy(engine: Engine):
    results = engine.run(Square(refused=3), iter(range(7)), COMPUTE)
    with pytest.raises(UserError, match=r"unit 3: cannot be squared\. Take another one\."):
        list(results)
    assert len(list(engine.run(Square(), iter(range(2)), COMPUTE))) == 2


def test_units_are_read_as_they_are_needed(engine: Engine):
    read: list[int] = []

    def units():
        for number in range(100):
            read.append(number)
            yield number

    results = engine.run(Square(), units(), COMPUTE)
    next(results)
    assert len(read) <= engine.workers + 1
