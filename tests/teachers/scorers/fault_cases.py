"""What a service of scores can do wrong, and the table of docs/pair_scores.md that says what comes of it.

`python -m tests.teachers.scorers.fault_cases` writes the table anew, from what happens.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stella_assets.core.errors import UserError
from stella_assets.core.markup import markdown_table
from stella_assets.teachers.api.answers import Answer
from stella_assets.teachers.api.budget import Budget
from stella_assets.teachers.api.client import ApiClient
from stella_assets.teachers.api.limits import Limits
from stella_assets.teachers.scorers.chat import ChatService
from stella_assets.teachers.scorers.dialects.base import ScoreService
from stella_assets.teachers.scorers.dialects.voyage import VoyageRerank
from tests.api_server import Fault, StandIn
from tests.api_server.encoders import word_judge
from tests.teachers.api.fault_cases import ALWAYS, KEY, POLICY

PAGE = Path(__file__).parents[3] / "docs" / "pair_scores.md"
TABLE = re.compile(r"(?<=<!-- table: faults -->\n).*?(?=<!-- end -->)", re.DOTALL)
HEAD = ("asked", "the service", "requests", "scored", "set aside", "what a person reads")
QUERIES = ["which stone is red"] * 4 + ["which stone is blue"] * 4
DOCUMENTS = [f"stone {number} is {colour}" for colour in ("red", "blue") for number in range(4)]
ODD = "an odd stone"
"""A document that the server refuses."""
VAGUE = "a vague stone"
"""A document of which the judge says that it depends."""


@dataclass(frozen=True)
class Case:
    """A fault of the first request or of several; a reranker has two of them with four documents, a judge eight.

    Attributes:
        asked: `reranker` or `judge`.
        words: For the table.
        faults: Of requests, in their order.
        documents: That are sent.
        key: That is sent.
    """

    asked: str
    words: str
    faults: Sequence[Fault] = ()
    documents: Sequence[str] = tuple(DOCUMENTS)
    key: str = KEY


def cases() -> list[Case]:
    """All cases, in the order of the table."""
    no_logprobs = json.dumps({"choices": [{"message": {"content": "Yes"}}]})
    return [
        Case("reranker", "200, the best document first"),
        *(
            Case("reranker", f"200, {words}, {often}", [Fault(spoil=spoil)] * times)
            for words, spoil in (
                ("a NaN", "nan"),
                ("a score is missing", "missing"),
                ("a score comes twice", "double"),
                ("an index that was not sent", "beyond"),
            )
            for often, times in (("once", 1), ("always", ALWAYS))
        ),
        Case("reranker", "200, JSON of another form, always", [Fault(body='{"scores": []}')] * ALWAYS),
        Case("reranker", "401", key=KEY + "-wrong"),
        Case("reranker", "404", [Fault(404, message="no such model")]),
        Case("reranker", "429 with `Retry-After: 0.03`", [Fault(429, headers={"retry-after": "0.03"})]),
        Case("reranker", "503, once", [Fault(503)]),
        Case("reranker", "400 for one document, e.g. as it is too long", documents=[*DOCUMENTS[:7], ODD]),
        Case("judge", "the answer is neither yes nor no, for one document", documents=[*DOCUMENTS[:7], VAGUE]),
        Case("judge", "no answer has logprobs", [Fault(body=no_logprobs)] * ALWAYS),
        Case("judge", "400 for one document, e.g. as it is too long", documents=[*DOCUMENTS[:7], ODD]),
    ]


def services(address: str) -> dict[str, ScoreService]:
    """What is asked."""
    return {
        "reranker": VoyageRerank(dialect="voyage", model="m", base_url=f"{address}/voyage/v1"),
        "judge": ChatService(model="m", base_url=f"{address}/openai/v1"),
    }


def new_stand_in() -> StandIn:
    """A stand-in for all cases."""
    plain = word_judge()

    def judge(query: str, documents: Sequence[str]) -> np.ndarray:
        return np.where([VAGUE in document for document in documents], np.nan, plain(query, documents))

    return StandIn(key=KEY, marker=ODD, judge=judge)


def observe(case: Case, stand_in: StandIn, address: str) -> tuple[str, ...]:
    """What comes of a case: a row of the table."""
    stand_in.faults.clear()
    stand_in.faults.extend(case.faults)
    client = ApiClient(services(address)[case.asked], case.key, Limits(concurrency=1), POLICY)
    answers: list[Answer] = []
    refusals, read = [], ""
    try:
        refusals = client.embed(case.documents, QUERIES, answers.append, Budget())
    except UserError as error:
        read = str(error).replace(address, "https://SERVICE")
    expected = np.concatenate([word_judge()(QUERIES[at], case.documents[at : at + 4]) for at in (0, 4)])
    for answer in answers if case.asked == "reranker" else ():
        np.testing.assert_allclose(answer.vectors[:, 0], expected[answer.positions], atol=1e-6)
    assert KEY not in read + str(refusals)
    reasons = "; ".join(sorted({refusal.reason for refusal in refusals}))
    stored = sum(len(answer.positions) for answer in answers)
    counts = str(client.counts.requests), f"{stored} of 8", str(len(refusals) or "")
    return case.asked, case.words, *counts, read or reasons


def table() -> str:
    """The table, from what happens."""
    stand_in = new_stand_in()
    with stand_in.running() as address:
        rows = [observe(case, stand_in, address) for case in cases()]
    return f"\n{markdown_table(HEAD, rows, figures=False, markup=True)}\n\n"


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda _: table(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
