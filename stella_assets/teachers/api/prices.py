"""What providers publish of their models: prices, dimensions and limits, from one dated file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from stella_assets.core.config import ConfigModel, Dimension
from stella_assets.core.errors import UserError
from stella_assets.teachers.api.limits import Limits

Dollars = Annotated[float, Field(ge=0)]


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


class Model(ConfigModel):
    """A model in the file."""

    price: Dollars | Literal["unknown"] = "unknown"
    batch: Dollars | None = None
    dimensions: Dimension | None = None
    offered: tuple[Dimension, ...] = ()
    largest: Dimension | None = None
    limits: Limits = Limits()


class Provider(ConfigModel):
    """A provider in the file."""

    url: str
    limits: Limits
    models: dict[str, Model]


def read_prices(path: Path) -> tuple[date, dict[str, Provider]]:
    """What such a file says.

    Args:
        path: Of the file.

    Returns:
        The day on which it was read, and the providers by dialect.

    Raises:
        UserError: It is damaged, or has a price that cannot be one.
    """
    try:
        contents = yaml.safe_load(path.read_text(encoding="utf-8"))
        read_on = TypeAdapter(date).validate_python(contents.pop("read_on"))
        return read_on, TypeAdapter(dict[str, Provider]).validate_python(contents)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        wrong = f"{'.'.join(map(str, first['loc']))}: {first['msg']} (value: {first['input']!r})"
    except (yaml.YAMLError, AttributeError, KeyError, UnicodeDecodeError) as error:
        wrong = " ".join(f"it is not YAML with `read_on` and providers: {error}".split())
    raise UserError(f"{path}: {wrong}.", "Correct it; prices are dollars for a million tokens, or `unknown`.")


@cache
def _shipped() -> tuple[date, dict[str, Provider]]:
    with as_file(files(__package__).joinpath("prices.yaml")) as path:
        return read_prices(path)


def published(dialect: str, model: str) -> Published | None:
    """What the provider of a dialect publishes of a model.

    Args:
        dialect: Its name.
        model: The provider's name of the model.

    Returns:
        The provider's limits alone for a model that the file does not have; None for a dialect without a provider.
    """
    read_on, providers = _shipped()
    if dialect not in providers:
        return None
    provider = providers[dialect]
    facts = provider.models.get(model, Model())
    return Published(
        read_on=read_on,
        url=provider.url,
        price=None if facts.price == "unknown" else facts.price,
        batch_price=facts.batch,
        dimensions=facts.dimensions,
        offered=facts.offered,
        largest=facts.largest,
        limits=facts.limits.over(provider.limits),
    )
