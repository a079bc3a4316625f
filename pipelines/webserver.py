"""The webserver of the UI, behind a guard: no page of another site can start jobs or read what the UI shows.

Dagster's own webserver answers every request that reaches it, also those that a page of another site makes a browser
send. `stella ui` therefore starts this module in place of `dagster-webserver`.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Annotated

import typer
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
SHUTDOWN_SECONDS = 5


class SameOriginMiddleware:
    """Refuses what a page of another site may have sent, and GraphQL over GET, which needs no script to be sent.

    The Host header must have been checked before: it is what the origin of a request is compared with.

    Args:
        app: Gets the other requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif reason := refusal(scope):
            await PlainTextResponse(f"{reason}\n", status_code=403)(scope, receive, send)
        else:

            async def send_unframed(message: Message) -> None:
                # A page of another site could lay an invisible frame of the UI over a button of its own.
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message)["X-Frame-Options"] = "SAMEORIGIN"
                await send(message)

            await self.app(scope, receive, send_unframed)


def refusal(scope: Scope) -> str:
    """Why a request is refused; empty if it is not.

    Args:
        scope: Of an HTTP request, or of a websocket that is to be opened.

    Returns:
        One sentence for the person who sent it.
    """
    headers, method = Headers(scope=scope), scope.get("method", "")
    # Browsers send it with every POST and every websocket, but not with the GET requests of a page to its own server.
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower():
        return "Refused: the Origin is not this server. A proxy in front of it must pass on the Host header."
    # Programs other than browsers send neither header, and links of other sites may open pages here.
    opens_page = (method, headers.get("sec-fetch-dest")) == ("GET", "document")
    if headers.get("sec-fetch-site", "none") not in {"none", "same-origin"} and not opens_page:
        return "Refused: a page of another site sent this request."
    # By its beginning: Starlette's route also matches a path with a newline at its end. The page itself is HTML.
    if scope["path"].startswith("/graphql") and method == "GET" and "text/html" not in headers.get("accept", ""):
        return "Refused: send GraphQL with POST."
    return ""


def allowed_hosts(host: str, names: list[str]) -> list[str]:
    """The host names and addresses under which the UI may be asked for.

    Args:
        host: The address that the server listens on.
        names: More names.

    Returns:
        What the Host header may contain, without a port.
    """
    return [*LOOPBACK, f"[{host}]" if ":" in host else host, *names]


def serve(
    code_server: Path,
    workspace_file: Path,
    host: str,
    port: int,
    allow_host: Annotated[list[str] | None, typer.Option()] = None,
) -> None:
    """Serve the UI until a signal ends this process.

    Args:
        code_server: The socket of the code server, which may not be there yet.
        workspace_file: Names the code server for Dagster.
        host: The address to listen on.
        port: The port to listen on.
        allow_host: Names of this server besides the address.
    """
    import uvicorn
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget
    from dagster_webserver.app import create_app_from_workspace_process_context
    from dagster_webserver.version import __version__

    from stella_assets.pipelines.environment import prepare_environment
    from stella_assets.pipelines.instance import open_instance

    with open_instance(prepare_environment()) as instance:
        while not accepts(code_server):
            time.sleep(0.1)
        target = WorkspaceFileTarget([str(workspace_file)])
        with WorkspaceProcessContext(instance, target, version=__version__) as context:
            app = create_app_from_workspace_process_context(context, live_data_poll_rate=2000)
            # The last one added is asked first.
            app.add_middleware(SameOriginMiddleware)
            app.add_middleware(TrustedHostMiddleware, allowed_hosts=allowed_hosts(host, allow_host or []))
            uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=SHUTDOWN_SECONDS)


def accepts(path: Path) -> bool:
    """Whether a server listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


if __name__ == "__main__":
    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)  # a pretty one may show variables
    command.command()(serve)
    command()
