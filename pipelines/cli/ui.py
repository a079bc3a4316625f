"""`stella ui` and `stella pools`."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
from typing import Annotated

import typer

from stella_assets.core.errors import UserError
from stella_assets.pipelines.cli.console import AsJson, make_table
from stella_assets.pipelines.cli.printing import note, out, print_json
from stella_assets.pipelines.environment import prepare_environment
from stella_assets.pipelines.project import project_root

EVERYWHERE = {"0.0.0.0", "::"}  # noqa: S104 (only compared with)
"""The addresses that stand for all of this machine."""
HOST = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9a-fA-F:.]+\]")


class PortError(UserError):
    """The UI cannot listen on its port."""


class HostError(UserError):
    """A name or an address of the host cannot be used."""


def pools(
    limits: Annotated[list[str] | None, typer.Argument(metavar="POOL=LIMIT", help="E.g. training=2.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show, or set, how many steps of a pool run at once, over all runs: encoding and training."""
    workspace = prepare_environment()
    from stella_assets.pipelines.instance import open_instance
    from stella_assets.pipelines.pools import set_limits

    with open_instance(workspace) as instance:
        found = set_limits(instance, limits or [])
    if as_json:
        print_json(found)
    else:
        rows = [{"pool": name, "limit": limit or "none"} for name, limit in found.items()]
        out.print(make_table(rows, "Steps at once"))


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 3000,
    host: Annotated[str, typer.Option(help="The address to listen on. There is no login.")] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A name that browsers may use for this machine, in addition to localhost."),
    ] = None,
) -> None:
    """Open the Dagster UI, with its scheduler, on 127.0.0.1."""
    # Also while Dagster is loaded, before there is something to end in order: see `main`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    workspace = prepare_environment()
    check_names(allow_host or [])
    check_address(host, port)
    # Its processes look for the project from the current folder upwards.
    os.chdir(project_root())
    from stella_assets.pipelines.services import run_ui

    said = f"The UI is on {shown_address(host, port)}; Ctrl-C ends it."
    if host in EVERYWHERE and not allow_host:
        said += " Browsers of other machines are refused: --allow-host NAME allows a name or an address of this one."
    ended = run_ui(workspace, host, port, allow_host or [], lambda: note(said))
    if ended is not None:
        note(("error", "bold red"), f" The UI has ended, because its {ended} did. The lines above say why.")
        raise typer.Exit(1)


def shown_address(host: str, port: int) -> str:
    """Where a browser of this machine finds the UI."""
    if host in {"127.0.0.1", "::1", *EVERYWHERE}:
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def check_names(names: list[str]) -> None:
    """Refuse what cannot be the host in a request.

    Args:
        names: Host names, addresses, or `*.` and a domain.

    Raises:
        HostError: One of them has a scheme, a port or a path, or stands for all hosts.
    """
    for name in names:
        if not HOST.fullmatch(name):
            raise HostError(
                f"--allow-host {name!r}: is not a host name.",
                "Give the name alone, without scheme and port, e.g. gpu-1.example.com or *.example.com.",
            )


def check_address(host: str, port: int) -> None:
    """Make sure that the UI can listen there.

    Args:
        host: The address.
        port: The port.

    Raises:
        HostError: It is empty, e.g. since a variable is not set; the UI would listen on every address.
        PortError: It cannot, e.g. because another program does.
    """
    if not host.strip():
        raise HostError(f"--host {host!r}: is not an address.", "Give an address of this machine, e.g. 127.0.0.1.")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # Otherwise a port of a UI that was just stopped counts as taken for a minute (TIME_WAIT).
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortError(
                    f"port {port} on {host} is in use.",
                    f"Stop the program that uses it, or choose another port: stella ui --port {port + 1}",
                ) from None
            raise PortError(
                f"port {port} on {host} cannot be used ({error.strerror}).",
                "Choose another port above 1023, or an address of this machine.",
            ) from None
