"""Losses as a recipe writes them: a mapping from the name of a loss to its weight or its settings."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from stella_assets.core.config import ConfigModel, Weight
from stella_assets.core.registry import Registry


class WeightedLosses(ConfigModel):
    """Weights of losses; a number is short for `{weight: number}`, and 0 leaves a loss out.

    Attributes:
        registry: Of the losses, whose names are the keys.
    """

    registry: ClassVar[Registry[Any]]

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if not self.weighted():
            raise ValueError("every weight is 0, so nothing would be learnt; give one of the losses a weight")
        return self

    def weighted(self) -> list[Any]:
        """The losses that count, in the order in which they are summed."""
        # A loss that was registered after the models were built has no field.
        found = [loss for name in self.registry.names() if (loss := getattr(self, name, None)) is not None]
        return sorted(found, key=lambda loss: (loss.order, loss.loss))

    @model_serializer(mode="wrap")
    def _write_as_recipes_do(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A loss without further settings as its weight, so that studies can multiply it.

        Losses that do not count are left out: a new loss must not change the identity of what is trained without it.
        """
        written = {name: value for name, value in write(self).items() if value is not None}
        return {
            name: value["weight"] if isinstance(value, dict) and value.keys() == {"weight"} else value
            for name, value in written.items()
        }


def loss_fields(registry: Registry[Any], *names: str, validators: tuple[AfterValidator, ...] = ()) -> dict[str, Any]:
    """The fields of a model of weighted losses, for `create_model`.

    Args:
        registry: Of the losses.
        names: Those that get a field; all when left out.
        validators: Further ones.
    """
    chosen = [registry[name] for name in names or registry.names()]
    return {
        loss.model_fields[registry.key].default: _field(loss, *validators)
        for loss in sorted(chosen, key=lambda each: (each.order, each.model_fields[registry.key].default))
    }


def _from_number(raw: Any) -> Any:
    """`10` is `{weight: 10}`; a weight of 0 leaves the loss out."""
    # A bool is an int in Python, and `cosine: true` is not a weight of 1.
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        raw = {"weight": raw}
    if raw is not None and not isinstance(raw, dict | ConfigModel):
        raise ValueError("a loss takes a weight, or settings such as `{weight: 10}`")
    return None if isinstance(raw, dict) and raw.get("weight") == 0 else raw


def _field(loss: type[ConfigModel], *validators: AfterValidator) -> Any:
    # The JSON schema shows what people write, a number or settings; the validator makes settings of both.
    written = BeforeValidator(_from_number, json_schema_input_type=Weight | loss | None)
    return Annotated[loss | None, *validators, written], Field(None, description=_summary(loss))


def _summary(loss: type[ConfigModel]) -> str:
    return " ".join((loss.__doc__ or "").split("\n\n", 1)[0].split())
