"""What the provider of a teacher's vectors allows to do with a model that learned from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stella_assets.core.config import ConfigModel, PastDay


class Terms(ConfigModel):
    """The provider's terms, as a person read them.

    Example:
        >>> Terms(distribution="internal", url="https://example.com/terms", read_on=date(2026, 11, 27))
    """

    distribution: Literal["allowed", "internal"] = Field(
        description="whether a model that learned from the vectors may be published; `internal` where nobody knows"
    )
    url: Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+([/?#]\S*)?$")] = Field(
        description="where the terms can be read"
    )
    read_on: PastDay = Field(description="the day on which somebody read them")

    def __str__(self) -> str:
        return f"{self.distribution} ({self.url}, read on {self.read_on})"
