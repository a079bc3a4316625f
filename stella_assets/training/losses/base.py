"""What every loss has: a weight, what it compares, and how it scales with the spread of the teachers' vectors."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from stella_assets.core.config import ConfigModel, Weight
from stella_assets.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.targets import Spread


Compared = Literal["vectors", "similarities", "pairs", "nothing"]


class LossConfig(ConfigModel):
    """Settings that all losses share. A loss adds its own, and the literal field `loss`, its name.

    In a recipe a loss is a key of `full_head` or `matryoshka_heads`; a number is short for `{weight: number}`.

    Attributes:
        compares: `vectors`: the student's vector with the teachers' vector of the same text, which needs equal
            dimensions; `similarities`: the cosines of all pairs of texts of the batch; `pairs`: the student's vectors
            of pairs of texts, which only a stage that reads pairs has; or `nothing`: the student's vectors alone.
        order: Terms are summed by it, then by name: the last bits of a sum depend on the order.

    Example:
        A file `stella_assets/training/losses/manhattan.py`, and nothing else, adds the loss `manhattan`:

        >>> @LOSSES.register
        ... class Manhattan(LossConfig):
        ...     '''Mean of `|s - t|`.'''
        ...     loss: Literal["manhattan"] = Field("manhattan", exclude=True)
        ...     def value(self, student, teacher, spread):
        ...         return (student - teacher).abs().sum(dim=1).mean()
        ...     def scale(self, spread):
        ...         return spread.distance
    """

    # Class variables, not fields: a recipe cannot set them, and they do not enter the identity of a stage.
    compares: ClassVar[Compared] = "vectors"
    order: ClassVar[int] = 100

    # The name is the key in the recipe already; excluded, so that a loss is written as its weight alone.
    loss: str = Field(exclude=True)
    weight: Weight = Field(description="what its value counts in the sum that is minimised")

    # `Any`: what it is compared with differs by `compares`.
    @abstractmethod
    def value(self, student: Tensor, teacher: Any, spread: Spread) -> Tensor:
        """The loss of a batch, without its weight.

        Args:
            student: Unit vectors `[B, D]` float32; for `similarities` their cosines `[B, B]`.
            teacher: The same of the teachers, which takes no gradient; for `pairs` the `Targets` with their pairs, and
                None for `nothing`.
            spread: Of the teachers' vectors; `Spread(1, 1)` where settings count in cosines.

        Returns:
            A scalar.
        """

    @abstractmethod
    def scale(self, spread: Spread) -> float:
        """The unit of the weight where `normalize_by_teacher_std` is set.

        It is about the loss of the best answer that is the same for every text.

        Args:
            spread: Of the teachers' vectors; with `Spread(1, 1)` the unit is 1, so weights count as they are.

        Returns:
            A number above 0, by which the weight is divided.
        """


LOSSES: Registry[LossConfig] = Registry("loss", key="loss")
