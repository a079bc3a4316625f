"""Start a stand-in in a process of its own."""

from contextlib import suppress
from typing import Annotated

import typer
import uvicorn

from tests.api_server.encoders import hash_encoder, minilm_encoder, spelling_encoder
from tests.api_server.server import StandIn

MODELS = {"hash": hash_encoder, "minilm": minilm_encoder, "spelling": spelling_encoder}


def main(
    port: Annotated[int, typer.Option(help="On 127.0.0.1.")],
    model: Annotated[str, typer.Option(help="`hash`, `minilm` or `spelling`.")] = "hash",
    key: Annotated[str | None, typer.Option(help="That requests must have.", envvar="STAND_IN_KEY")] = None,
    latency: Annotated[float, typer.Option(help="Seconds of every answer.")] = 0.0,
    requests_per_minute: Annotated[int | None, typer.Option(help="More are refused with 429.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(help="More are refused with 429.")] = None,
    say_limits: Annotated[bool, typer.Option(help="Whether answers have `x-ratelimit-*`.")] = False,
) -> None:
    """Play embedding services on loopback: POST to /openai/v1/embeddings and others; GET /counts says what was done."""
    stand_in = StandIn(
        MODELS[model](),
        key=key,
        latency=latency,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        say_limits=say_limits,
    )
    with suppress(KeyboardInterrupt):
        uvicorn.run(stand_in.app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    typer.run(main)
