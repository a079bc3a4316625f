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
    """What is done with a unit. A worker is picklable and small: it names models and tables, and opens them later.

    Workers with equal values compare as equal (a frozen dataclass does), so that a process opens them once.

    Example:
        >>> @dataclass(frozen=True)
        ... class Encode:
        ...     model: str
        ...     def open(self, compute):
        ...         encoder = load_sentence_transformer(ModelSource(model=self.model), device=str(compute.device))
        ...         return encoder.encode
    """

    def open(self, compute: Compute) -> Callable[[U_contra], R_co]:
        """Load what the work needs onto a device.

        Args:
            compute: Device, number format and threads of the process that calls it.

        Returns:
            The function that computes one unit.
        """


class Engine(ConfigModel):
    """Computes units of work.

    Kinds have a literal field `kind`. Units do not depend on one another; results come back in their order.

    Example:
        >>> for result in LocalEngine().run(worker, units, Compute()):
        ...     commit(result)
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
            One result per unit, in the order of the units. An error of a unit is raised in its place.
        """

    def close(self) -> None:
        """Release processes and devices; the engine can be used again."""


# Here and not in `__init__`, which imports the kinds: each of them needs the registry while it is imported.
ENGINES: Registry[Any] = Registry("engine")
