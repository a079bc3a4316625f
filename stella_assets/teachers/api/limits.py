"""How much one request may hold, and how much may be sent in a minute."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field

from stella_assets.core.config import ConfigModel, Positive


class Limits(ConfigModel):
    """Limits of a service, or of an account with it. What is not given is the default of the dialect."""

    items: Positive | None = Field(default=None, description="texts of a request")
    item_tokens: Positive | None = Field(default=None, description="tokens of a text; longer ones are refused")
    request_tokens: Positive | None = Field(default=None, description="tokens of a request")
    request_bytes: Positive | None = Field(default=None, description="bytes of a request's body")
    requests_per_minute: Positive | None = Field(default=None, description="requests that are sent in a minute")
    texts_per_minute: Positive | None = Field(default=None, description="texts that are sent in a minute")
    tokens_per_minute: Positive | None = Field(default=None, description="tokens that are sent in a minute")
    concurrency: Annotated[int, Field(gt=0, le=1024)] | None = Field(
        default=None, description="requests in flight at once; a run that is killed pays for at most these again"
    )
    timeout: Annotated[float, Field(gt=0, le=3600)] | None = Field(
        default=None, description="seconds without a byte of an answer after which a request is sent again"
    )

    def over(self, defaults: Limits) -> Self:
        """These limits, and the defaults where one is not given."""
        given = {name: value for name, value in self if value is not None}
        return self.model_copy(update={**dict(defaults), **given})
