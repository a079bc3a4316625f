"""The processes of the UI: a code server, the webserver and the daemon. They start and end together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from stella_assets.pipelines.instance import open_instance
from stella_assets.storage.workspace import Workspace

DEFINITIONS = "stella_assets.pipelines.definitions"
"""Also the name of the code location: Dagster keeps under it whether a schedule is turned on."""
END_SECONDS = 15


class Services:
    """Processes that run until this one gets a signal, or until one of them ends.

    A signal leaves a note and raises nothing: an exception in the middle of an import may be lost there. Dagster's own
    handler is not used, because it ignores SIGTERM where SIGINT is ignored, as in the background jobs of a script.
    """

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._signals: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # After `nohup` the UI is to live on. An ignored SIGINT is not respected: children would inherit it.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda number, _frame: self._signals.append(number))

    def start(self, name: str, *arguments: str) -> None:
        """Start `python -m ARGUMENTS`, unless a signal came."""
        if not self._signals:
            # In a session of its own: Ctrl-C reaches this process alone, which then ends the others in order.
            self._processes[name] = subprocess.Popen([sys.executable, "-m", *arguments], start_new_session=True)

    def ended(self) -> str | None:
        """The name of a process that ended by itself."""
        return next((name for name, process in self._processes.items() if process.poll() is not None), None)

    def wait_until(self, is_ready: Callable[[], bool]) -> bool:
        """Wait for something.

        Args:
            is_ready: Asked ten times a second.

        Returns:
            Whether it came to pass before a signal or the end of a process.
        """
        while not self._signals and self.ended() is None:
            if is_ready():
                return True
            time.sleep(0.1)
        return False

    def end(self, number: int) -> None:
        """End all processes, and what they started, e.g. runs. What does not end in time is killed.

        Args:
            number: The signal that asks them to end.
        """
        processes = list(self._processes.values())
        # The code server, which was started first, is ended last: the others use it.
        for group in (processes[1:], processes[:1]):
            _end(group, number)


def run_ui(
    workspace: Workspace, host: str, port: int, names: Iterable[str], announce: Callable[[], None]
) -> str | None:
    """Run the UI with its scheduler until this process gets SIGINT, SIGTERM or SIGHUP.

    Args:
        workspace: Where state is kept; `DAGSTER_HOME` is set already.
        host: The address to listen on.
        port: The port to listen on.
        names: More names that browsers may use for the host.
        announce: Called when the UI answers.

    Returns:
        The process that ended by itself, and so ended the others; None after a signal.

    Raises:
        EnvironmentVariableError: `STELLA_POSTGRES` is set and cannot be used.
    """
    services = Services()
    # Creates Dagster's tables: two processes that do it at once leave tables that nothing can open.
    with open_instance(workspace):
        pass
    with TemporaryDirectory(prefix="stella-ui-") as folder:
        code_server, locations = Path(folder, "code-server"), Path(folder, "workspace.yaml")
        location = {"socket": str(code_server), "location_name": DEFINITIONS}
        locations.write_text(yaml.safe_dump({"load_from": [{"grpc_server": location}]}), encoding="utf-8")
        allowed = [word for name in names for word in ("--allow-host", name)]
        # Dagster answers an early SIGTERM with tracebacks. Nothing can be lost before the UI answers.
        ending = signal.SIGKILL
        try:
            services.start(
                *("code server", "dagster", "code-server", "start", "--socket", str(code_server)),
                *("--log-level", "warning", "--inject-env-vars-from-instance", "-m", DEFINITIONS),
            )
            # Next to it rather than after it: loading Dagster takes both of them seconds.
            services.start(
                *("webserver", "stella_assets.pipelines.webserver", str(code_server), str(locations)),
                *(host, str(port), *allowed),
            )
            # The daemon would report a code server that is not there yet as an error.
            if services.wait_until(lambda: _answers(host, port)):
                services.start("daemon", "dagster._daemon", "run", "--workspace", str(locations))
                announce()
                ending = signal.SIGTERM
                services.wait_until(lambda: False)
            return services.ended()
        finally:
            services.end(ending)


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def _end(processes: list[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        _signal(process, number)
    deadline = time.monotonic() + END_SECONDS
    while any(_signal(process, 0) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in processes:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal to a process and those that it started; whether one of them is left."""
    process.poll()  # one that was not waited for would count as left
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):  # macOS answers with the latter for processes that have ended
        return False
    return True
