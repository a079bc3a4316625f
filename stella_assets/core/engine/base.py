"""What every engine is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from stella_assets.core.config import ConfigModel
from stella_assets.core.registry import Registry

if TYPE_CHECKING:
    from stella_assets.core.devices import Compute

U = TypeVar("U")
R = TypeVar("R")
U_contra = TypeVar("U_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Worker(Protocol[U_contra, R_co]):
    """What is done with a unit. A worker is picklable and small: it names models and tables, and opens them later."""

    def open(self, compute: Compute) -> Callable[[U_contra], R_co]:
        """Load what the work needs onto a device, and return the function that computes one unit."""


class Engine(ConfigModel):
    """Computes units of work.

    Kinds have a literal field `kind`. Units do not depend on one another; results come back in their order.
    """

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many units are computed at once."""

    @abstractmethod
    def run(self, worker: Worker[U, R], units: Iterable[U], compute: Compute) -> Iterator[R]:
        """Compute units.

        Args:
            worker: What is done with a unit.
            units: Read as they are needed.
            compute: Device, number format and threads of this process; an engine of several processes divides them.

        Yields:
            One result per unit, in the order of the units.
        """

    def close(self) -> None:
        """Release processes and devices; the engine can be used again."""


ENGINES: Registry[Any] = Registry("engine")
