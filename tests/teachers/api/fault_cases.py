"""What a service can do wrong, and the table of docs/api_teachers.md that says what comes of it.

`python -m tests.teachers.api.fault_cases` writes the table anew, from what happens.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import numpy as np

from stella_assets.core.errors import UserError
from stella_assets.core.markup import markdown_table
from stella_assets.teachers.api.answers import Answer
from stella_assets.teachers.api.budget import Budget
from stella_assets.teachers.api.client import ApiClient
from stella_assets.teachers.api.dialects.openai import OpenAiDialect
from stella_assets.teachers.api.limits import Limits
from stella_assets.teachers.api.retry import RetryPolicy
from tests.api_server import Fault, StandIn, hash_encoder

PAGE = Path(__file__).parents[3] / "docs" / "api_teachers.md"
TABLE = re.compile(r"(?<=<!-- table: faults -->\n).*?(?=<!-- end -->)", re.DOTALL)
HEAD = ("the service", "requests", "stored", "set aside", "what a person reads")
KEY = "sk-marker-1234567890"
TEXTS = [f"text {number}" for number in range(8)]
POLICY = RetryPolicy(first=0.002, longest=0.05, tries=4, patience=5.0)
ALWAYS = 50


@dataclass(frozen=True)
class Case:
    """A fault of the first request or of several, of two requests with four texts each.

    Attributes:
        words: For the table.
        faults: Of requests, in their order.
        texts: That are sent.
        max_items: Texts that the server takes at once.
        key: That is sent.
        timeout: Seconds.
        listens: Whether there is a server at all.
    """

    words: str
    faults: Sequence[Fault] = ()
    texts: Sequence[str] = field(default_factory=lambda: TEXTS)
    max_items: int | None = None
    key: str = KEY
    timeout: float = 10.0
    listens: bool = True


def _in_a_second() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)


def _once_and_always(words: str, fault: Fault) -> list[Case]:
    return [Case(f"{words}, once", [fault]), Case(f"{words}, always", [fault] * ALWAYS)]


FINAL = {
    301: "moved",
    401: "who are you?",
    402: "no credit",
    403: "this model is not yours",
    404: "no such model",
    405: "not allowed",
    498: "blocked",
}
PASSING = (408, 409, 424, 425, 500, 502, 503, 504, 529)
DIMENSIONS = '{"error": {"message": "this model cannot shorten", "param": "dimensions", "code": null}}'


def cases() -> list[Case]:
    """All cases, in the order of the table."""
    found = [
        Case("200, rows in another order", [Fault(spoil="reorder")] * 2),
        *_once_and_always("200, cut in the middle", Fault(cut=True)),
        *_once_and_always("200, not JSON", Fault(body="Welcome")),
        *_once_and_always("200, JSON of another form", Fault(body='{"vectors": []}')),
        *_once_and_always("200, a NaN", Fault(spoil="nan")),
        *_once_and_always("200, a vector of zeros", Fault(spoil="zeros")),
        *_once_and_always("200, a row is missing", Fault(spoil="missing")),
        *_once_and_always("200, a row comes twice", Fault(spoil="double")),
        *_once_and_always("200, an index that was not sent", Fault(spoil="beyond")),
        *_once_and_always("200, vectors of different lengths", Fault(spoil="ragged")),
        Case("200, other dimensions than before", [Fault(), Fault(spoil="dimensions")]),
        Case("nobody listens", listens=False),
        Case("no answer in time, once", [Fault(delay=0.4)], timeout=0.1),
    ]
    found += [Case(f"{status}", [Fault(status, message=words)]) for status, words in FINAL.items()]
    found += [Case(f"{status}, once", [Fault(status)]) for status in PASSING]
    found += [
        Case("500, always", [Fault(500, message="out of memory")] * ALWAYS),
        Case("502 without JSON, always", [Fault(502, body="Bad\nGateway")] * ALWAYS),
        Case("500 with `x-should-retry: false`", [Fault(500, headers={"x-should-retry": "false"})]),
        Case("a wrong key, which the error repeats", key=KEY + "-wrong"),
        Case("400 for one text", texts=[*TEXTS[:5], "forbidden", *TEXTS[6:]]),
        Case("400 for every text", texts=[f"forbidden {number}" for number in range(8)]),
        Case("400, more texts than it takes at once", max_items=2),
        Case("413, once", [Fault(413, message="too large")]),
        Case("422, once", [Fault(422, message="cannot be tokenised")]),
        Case("400 for a setting", [Fault(400, body=DIMENSIONS)]),
        Case("400, account at its limit", [Fault(400, message="Limit reached", code="billing_hard_limit_reached")]),
        Case("429 without a time", [Fault(429)]),
        Case("429 with `retry-after-ms: 30`", [Fault(429, headers={"retry-after-ms": "30"})]),
        Case("429 with `Retry-After: 0.03`", [Fault(429, headers={"retry-after": "0.03"})]),
        Case("429 with `Retry-After` as a date", [Fault(429, headers={"retry-after": _in_a_second()})]),
        Case("429 with `Retry-After: 3600`", [Fault(429, headers={"retry-after": "3600"})]),
        Case("429, quota exhausted", [Fault(429, message="You exceeded your quota", code="insufficient_quota")]),
    ]
    return found


@contextmanager
def served() -> Iterator[tuple[StandIn, str]]:
    """A stand-in for all cases, and its address."""
    stand_in = StandIn(key=KEY, marker="forbidden")
    with stand_in.running() as address:
        yield stand_in, address


def observe(case: Case, stand_in: StandIn, address: str) -> tuple[str, ...]:
    """What comes of a case: a row of the table."""
    if not case.listens:
        address = "http://127.0.0.1:9"  # `discard`, which no machine serves any more
    stand_in.faults.clear()
    stand_in.faults.extend(case.faults)
    stand_in.max_items = case.max_items
    service = OpenAiDialect(dialect="openai", model="m", base_url=f"{address}/openai/v1")
    client = ApiClient(service, case.key, Limits(items=4, concurrency=1, timeout=case.timeout), POLICY)
    answers: list[Answer] = []
    refusals, read = [], ""
    try:
        refusals = client.embed(case.texts, "document", answers.append, Budget())
    except UserError as error:
        read = str(error).replace(address, "https://SERVICE")
    expected = hash_encoder()(case.texts)
    for answer in answers:
        np.testing.assert_allclose(answer.vectors, expected[answer.positions], atol=1e-6)
    assert KEY not in read + str(refusals)
    reasons = "; ".join(sorted({refusal.reason for refusal in refusals}))
    stored = sum(len(answer.positions) for answer in answers)
    return case.words, str(client.counts.requests), f"{stored} of 8", str(len(refusals) or ""), read or reasons


def table() -> str:
    """The table, from what happens."""
    with served() as (stand_in, address):
        rows = [observe(case, stand_in, address) for case in cases()]
    return f"\n{markdown_table(HEAD, rows, figures=False, markup=True)}\n\n"


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda _: table(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
