"""What providers publish of their models: prices, dimensions and limits, from one dated file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from stella_assets.teachers.api.limits import Limits


@dataclass(frozen=True)
class Published:
    """What a provider publishes of a model.

    Attributes:
        read_on: When.
        url: Where prices are.
        price: Dollars for a million tokens; None where nobody looked it up.
        batch_price: The same of the batch API; None where there is none, or nobody looked it up.
        dimensions: Of a vector, where none are asked for.
        offered: The dimensions that can be asked for, ascending; empty where nobody looked them up, or any can be.
        largest: Up to which all can be asked for; None where that is not so.
        limits: Of a request.
    """

    read_on: date
    url: str
    price: float | None
    batch_price: float | None
    dimensions: int | None
    offered: tuple[int, ...]
    largest: int | None
    limits: Limits

    def instead_of(self, dimensions: int) -> str:
        """What is offered in place of some dimensions; empty where they are offered, or nobody looked it up."""
        if self.offered and dimensions not in self.offered:
            return ", ".join(map(str, self.offered))
        return f"1 to {self.largest}" if self.largest and dimensions > self.largest else ""


@cache
def _contents() -> dict[str, Any]:
    text = files(__package__).joinpath("prices.yaml").read_text(encoding="utf-8")
    contents: dict[str, Any] = yaml.safe_load(text)
    return contents


def _known(price: object) -> float | None:
    return price if isinstance(price, float) else None  # the file has the word `unknown`


def published(dialect: str, model: str) -> Published | None:
    """What the provider of a dialect publishes of a model.

    Args:
        dialect: Its name.
        model: The provider's name of the model.

    Returns:
        The provider's limits alone for a model that the file does not have; None for a dialect without a provider.
    """
    provider = _contents().get(dialect)
    if not isinstance(provider, dict):
        return None
    facts = provider["models"].get(model, {})
    return Published(
        read_on=_contents()["read_on"],
        url=provider["url"],
        price=_known(facts.get("price")),
        batch_price=_known(facts.get("batch")),
        dimensions=facts.get("dimensions"),
        offered=tuple(facts.get("offered", ())),
        largest=facts.get("largest"),
        limits=Limits(**facts.get("limits", {})).over(Limits(**provider["limits"])),
    )
