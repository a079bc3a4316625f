"""`stella ui` and `stella pools`."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from stella_assets.core.errors import UserError
from stella_assets.pipelines.cli.console import AsJson, make_table
from stella_assets.pipelines.cli.printing import out, print_json
from stella_assets.pipelines.environment import check_postgres, prepare_environment
from stella_assets.pipelines.project import project_root


class PortError(UserError):
    """The port of the UI is in use."""


def pools(
    limits: Annotated[list[str] | None, typer.Argument(metavar="POOL=LIMIT", help="E.g. training=2.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show, or set, how many steps of a pool run at once, over all runs: encoding and training."""
    workspace = prepare_environment()
    from stella_assets.pipelines.launch import open_instance
    from stella_assets.pipelines.pools import set_limits

    with open_instance(workspace) as instance:
        found = set_limits(instance, limits or [])
    if as_json:
        print_json(found)
    else:
        rows = [{"pool": name, "limit": limit or "none"} for name, limit in found.items()]
        out.print(make_table(rows, "Steps at once"))


def ui(port: Annotated[int, typer.Option(help="On 127.0.0.1.")] = 3000) -> None:
    """Open the Dagster UI, with its scheduler, on 127.0.0.1."""
    prepare_environment()
    with socket.socket() as probe:
        # Otherwise a port of a UI that was just stopped counts as taken for a minute (TIME_WAIT).
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise PortError(
                f"port {port} on 127.0.0.1 is in use.",
                f"Stop the program that uses it, or choose another port: stella ui --port {port + 1}",
            ) from None
    check_postgres()
    dagster = Path(sys.executable).with_name("dagster")
    arguments = ["dev", "-m", "stella_assets.pipelines.definitions", "-h", "127.0.0.1", "-p", str(port)]
    # Its processes look for the project, and for `.env`, from the current folder.
    os.chdir(project_root())
    # Instead of a child: signals reach Dagster itself, and no parent is left behind.
    os.execv(dagster, [str(dagster), *arguments])  # noqa: S606 (a fixed program of this environment)
