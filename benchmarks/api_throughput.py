"""How much of a service's limit is used, and how many requests it refuses: a server with 200 ms latency on loopback.

    python -m benchmarks.api_throughput [--only requests]

The server refuses what exceeds its limit in any 60 seconds. Counted is the minute that begins 15 s after the first
request. A client that knows no limit has to find it: then five minutes count, after two. Each case must use 95% of its
limit, with at most 1% of requests refused.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import typer

from benchmarks import write_row
from stella_assets.teachers.api.answers import Answer
from stella_assets.teachers.api.budget import Budget
from stella_assets.teachers.api.client import ApiClient
from stella_assets.teachers.api.dialects.openai import OpenAiDialect
from stella_assets.teachers.api.limits import Limits

LATENCY = 0.2


@dataclass(frozen=True)
class Case:
    """A limit of the server, and what the client knows of it.

    Attributes:
        name: For `--only`.
        limit: `requests` or `tokens`.
        per_minute: The limit.
        stated: Whether the recipe states it.
        said: Whether the server's headers do.
        words: Of a text.
        items: Texts of a request.
        warm_up: Seconds after which it is counted.
        counted: Seconds.
    """

    name: str
    limit: str
    per_minute: int
    stated: bool = True
    said: bool = False
    words: int = 5
    items: int = 4
    warm_up: float = 15.0
    counted: float = 60.0


CASES = (
    Case("requests", "requests", 600),
    Case("many_requests", "requests", 3000),
    Case("tokens", "tokens", 1_000_000, words=200, items=16),
    Case("requests_by_headers", "requests", 600, stated=False, said=True),
    Case("requests_unknown", "requests", 600, stated=False, warm_up=120.0, counted=300.0),
)


def start(case: Case, port: int) -> subprocess.Popen[bytes]:
    limit = [f"--{case.limit}-per-minute", str(case.per_minute), *(["--say-limits"] if case.said else [])]
    command = [sys.executable, "-m", "tests.api_server", "--port", str(port), "--latency", str(LATENCY), *limit]
    process = subprocess.Popen(command)
    while process.poll() is None:
        try:
            counts(port)
        except URLError:
            time.sleep(0.1)
        else:
            return process
    raise RuntimeError(f"no server could be started on port {port}")


def counts(port: int) -> dict[str, int]:
    with urlopen(f"http://127.0.0.1:{port}/counts") as answer:
        found: dict[str, int] = json.load(answer)
    return found


def measure(case: Case, port: int) -> dict[str, Any]:
    service = OpenAiDialect(dialect="openai", model="m", base_url=f"http://127.0.0.1:{port}/openai/v1")
    limits = {f"{case.limit}_per_minute": case.per_minute} if case.stated else {}
    client = ApiClient(service, None, Limits(items=case.items, **limits))
    of_request = 1 if case.limit == "requests" else case.items * (case.words + 2)
    seconds = case.warm_up + case.counted
    requests = int(case.per_minute / of_request * (seconds + 5) / 60)
    texts = [f"{number} {'word ' * (case.words - 1)}" for number in range(requests * case.items)]
    times: list[tuple[float, int]] = []
    before: dict[str, int] = {}

    def on_answer(answer: Answer) -> None:
        times.append((time.monotonic(), 1 if case.limit == "requests" else answer.tokens))
        if not before and time.monotonic() - began >= case.warm_up:
            before.update(counts(port))

    began = time.monotonic()
    client.embed(texts, "document", on_answer, Budget())
    after, amounts = np.array([moment for moment, _ in times]) - began, np.array([amount for _, amount in times])
    used = amounts[(after >= case.warm_up) & (after < seconds)].sum() / (case.per_minute * case.counted / 60)
    seen = counts(port)
    asked = seen["requests"] - before["requests"]
    return {
        "case": case.name,
        "per_minute": case.per_minute,
        "stated": case.stated,
        "used": round(float(used), 4),
        "refused": round((seen["too_many"] - before["too_many"]) / asked, 4),
        "refused_before": before["too_many"],
        "requests": seen["requests"],
        "seconds": round(time.monotonic() - began, 1),
    }


def main(only: Annotated[str | None, typer.Option(help="The name of one case.")] = None, port: int = 18900) -> None:
    for number, case in enumerate(case for case in CASES if only in (None, case.name)):
        process = start(case, port + number)
        try:
            row = measure(case, port + number)
        finally:
            process.terminate()
            process.wait()
        write_row("api_throughput", row)
        assert row["used"] >= 0.95
        assert row["refused"] <= 0.01


if __name__ == "__main__":
    typer.run(main)
