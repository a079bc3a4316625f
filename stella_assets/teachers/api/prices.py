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
        limits: Of a request.
    """

    read_on: date
    url: str
    price: float | None
    batch_price: float | None
    dimensions: int | None
    limits: Limits


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
        limits=Limits(**facts.get("limits", {})).over(Limits(**provider["limits"])),
    )
