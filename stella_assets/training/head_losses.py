"""The losses of a head as a recipe writes them: a mapping from the name of a loss to its weight or its settings.

The models are built from the registry of losses when this module is imported. Losses of installed packages have to be
registered before; `stella_assets.recipe` sees to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    create_model,
    model_serializer,
    model_validator,
)

from stella_assets.core.config import ConfigModel, Positive, Weight, is_number
from stella_assets.training.losses import LOSSES, LossConfig


class HeadLossesBase(ConfigModel):
    """Weights of the losses of a head; a number is short for `{weight: number}`, and 0 leaves a loss out.

    The published weights are those of arXiv 2412.19048, section 3.1.
    """

    normalize_by_teacher_std: bool = Field(
        False, description="weights and margins count in units of the teachers' own similarity spread, not of cosine"
    )

    @property
    def losses(self) -> list[LossConfig]:
        """The losses that count, in the order in which they are summed."""
        # A loss that was registered after the models were built has no field.
        found = [loss for name in LOSSES.names() if isinstance(loss := getattr(self, name, None), LossConfig)]
        return sorted(found, key=lambda loss: (loss.order, loss.loss))

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if not self.losses:
            raise ValueError("every weight is 0, so nothing would be learnt; give one of the losses a weight")
        return self

    @model_serializer(mode="wrap")
    def _write_as_recipes_do(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A loss without further settings as its weight, so that studies can multiply it.

        Losses that do not count are left out: a new loss must not change the identity of stages without it.
        """
        written = {name: value for name, value in write(self).items() if value is not None}
        return {
            name: value["weight"] if isinstance(value, dict) and value.keys() == {"weight"} else value
            for name, value in written.items()
        }


def _from_number(raw: Any) -> Any:
    """`10` is `{weight: 10}`; a weight of 0 leaves the loss out."""
    # A bool is an int in Python, and `cosine: true` is not a weight of 1.
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        raw = {"weight": raw}
    if raw is not None and not isinstance(raw, dict | LossConfig):
        raise ValueError("a loss takes a weight, or settings such as `{weight: 10}`")
    return None if isinstance(raw, dict) and raw.get("weight") == 0 else raw


def _refuse(loss: LossConfig | None) -> None:
    # Returns None, which then is the value: the field exists to say why a loss cannot be given here.
    if loss is not None:
        raise ValueError(
            f"{loss.loss} compares vectors of equal dimensions, and a Matryoshka head has other dimensions than the "
            "teachers; remove it, or take a loss that compares similarities"
        )


def _loss_field(loss: type[LossConfig], *validators: AfterValidator) -> Any:
    # The JSON schema shows what people write, a number or settings; the validator makes settings of both.
    written = BeforeValidator(_from_number, json_schema_input_type=Weight | loss | None)
    return Annotated[loss | None, *validators, written], Field(None, description=_summary(loss))


def _summary(loss: type[LossConfig]) -> str:
    return " ".join((loss.__doc__ or "").split("\n\n", 1)[0].split())


def _by_order() -> list[tuple[str, type[LossConfig]]]:
    return sorted(((name, LOSSES[name]) for name in LOSSES.names()), key=lambda item: (item[1].order, item[0]))


# mypy cannot see fields that are created at import; the base has all that code uses.
if TYPE_CHECKING:
    HeadLosses = HeadLossesBase
    MatryoshkaLosses = HeadLossesBase
else:
    HeadLosses = create_model(
        "HeadLosses",
        __base__=HeadLossesBase,
        __doc__=HeadLossesBase.__doc__,
        **{name: _loss_field(loss) for name, loss in _by_order()},
    )
    MatryoshkaLosses = create_model(
        "MatryoshkaLosses",
        __base__=HeadLosses,
        __doc__="Weights of the losses of a Matryoshka head; only losses that compare similarities.",
        **{
            name: _loss_field(loss, AfterValidator(_refuse)) for name, loss in _by_order() if loss.compares == "vectors"
        },
    )


def _each_or_by_dimension(raw: Any) -> str:
    # YAML gives dimensions as integers, JSON as text; no loss has a number for a name.
    keyed = isinstance(raw, dict) and raw and all(is_number(str(key)) for key in raw)
    return "by_dimension" if keyed else "each"


MatryoshkaHeads = Annotated[
    Annotated[MatryoshkaLosses, Tag("each")] | Annotated[dict[Positive, MatryoshkaLosses], Tag("by_dimension")],
    Discriminator(_each_or_by_dimension),
]
"""Losses of every Matryoshka head, or by dimension."""
