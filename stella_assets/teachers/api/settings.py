"""Settings of whoever asks a service: a teacher, or a scorer of pairs."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from stella_assets.core.config import ConfigModel, Positive
from stella_assets.core.services import Services
from stella_assets.teachers.api.limits import Limits
from stella_assets.teachers.api.service import Service
from stella_assets.teachers.forecast import Forecast
from stella_assets.teachers.terms import Terms

VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*")
KEY_LENGTH = 20
"""Keys of services are as long at least; with small letters and digits, a name of that length is taken for one."""


def _require_variable(name: str) -> str:
    """A key in place of a variable's name would get into manifests and messages."""
    looks_like_key = len(name) >= KEY_LENGTH and any(map(str.islower, name)) and any(map(str.isdigit, name))
    if looks_like_key or not VARIABLE.fullmatch(name):
        raise ValueError(
            "not the name of an environment variable, and perhaps the key itself, so it is not shown here: put the key "
            "into a variable, and give the name of that"
        )
    return name


class AskingConfig(ConfigModel):
    """Key, limits, price and terms. None of them decides what is answered."""

    service: Service = Field(description="how it is asked, and for which model: see the dialects")
    key: Annotated[str, AfterValidator(_require_variable)] | None = Field(
        description="name of the environment variable that holds the key; null for a server without keys"
    )
    limits: Limits = Field(Limits(), description="over those of the dialect")
    max_cost: Annotated[float, Field(gt=0)] | None = Field(
        None, description="dollars that this workspace may pay for it in all; it stops before that"
    )
    max_tokens: Positive | None = Field(None, description="tokens that may be billed for it in all")
    price: Annotated[float, Field(ge=0)] | None = Field(
        None, description="dollars for a million tokens; what the provider publishes where it is left out"
    )
    terms: Terms = Field(description="what the provider allows")

    @model_validator(mode="after")
    def _require_price(self) -> Self:
        if self.max_cost is not None and self.known_price is None:
            raise ValueError("max_cost: the price of this model is not known; state `price`, or use `max_tokens`")
        return self

    @property
    def known_price(self) -> float | None:
        """Dollars for a million tokens: `price`, else what the provider publishes; None where nobody knows."""
        facts = self.service.published()
        return self.price if self.price is not None or facts is None else facts.price

    def priced(self, texts: int, tokens: int | None, counted: str, price: float | None) -> Forecast:
        """What texts would cost.

        Args:
            texts: How many.
            tokens: Of all; None where nothing tells.
            counted: How these are known.
            price: Dollars for a million of them; None where nobody knows.
        """
        facts = self.service.published()
        dollars = None if price is None or tokens is None else tokens * price / 1e6
        if self.price is not None:
            priced = "price of the recipe"
        elif facts is not None and price is not None:
            priced = f"price of {facts.read_on}, {facts.url}"
        else:
            priced = "the price is not known; state `price`"
        return Forecast(texts, tokens, counted, dollars, priced, self.service.bills)

    def require_key(self, services: Services, owner: str) -> str | None:
        """The key; None for a server without keys.

        Args:
            services: Where it is.
            owner: Who needs it, for the message.

        Raises:
            MissingSecretError: The environment variable is not set.
        """
        return None if self.key is None else services.require_secret(self.key, owner)
