"""The client against a server that answers, refuses and fails in the protocol of OpenAI."""

import asyncio
import socket
import socketserver
import threading
import time
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest

from stella_assets.teachers.api.answers import Answer
from stella_assets.teachers.api.budget import Budget
from stella_assets.teachers.api.client import ApiClient
from stella_assets.teachers.api.count import Counter, bound_tokens
from stella_assets.teachers.api.dialects.openai import OpenAiDialect
from stella_assets.teachers.api.errors import ApiError, BudgetError
from stella_assets.teachers.api.limits import Limits
from stella_assets.teachers.api.retry import RetryPolicy
from tests.api_server import Fault, StandIn, hash_encoder

KEY = "sk-marker-1234567890"
QUICK = RetryPolicy(first=0.01)
TEXTS = [f"text number {number}" for number in range(100)]


def client(address: str, key: str | None = KEY, policy: RetryPolicy = QUICK, **limits: int) -> ApiClient:
    service = OpenAiDialect(dialect="openai", model="any", base_url=f"{address}/openai/v1")
    return ApiClient(service, key, Limits(**{"items": 8, **limits}), policy)


def embed(asked: ApiClient, texts: list[str] = TEXTS, budget: Budget | None = None) -> tuple[np.ndarray, list[Answer]]:
    """Vectors in the order of texts; NaN where there is none."""
    answers: list[Answer] = []
    asked.embed(texts, "document", answers.append, budget or Budget())
    vectors = np.full((len(texts), answers[0].vectors.shape[1]), np.nan, dtype=np.float32)
    for answer in answers:
        vectors[answer.positions] = answer.vectors
    return vectors, answers


def test_every_text_gets_the_vector_that_the_model_has_for_it():
    with StandIn(key=KEY).running() as address:
        vectors, answers = embed(client(address))
    np.testing.assert_allclose(vectors, hash_encoder()(TEXTS), atol=1e-6)
    assert sorted(np.concatenate([answer.positions for answer in answers])) == list(range(100))
    assert sum(answer.tokens for answer in answers) == 500
    assert all(answer.request_id.startswith("req-") for answer in answers)


@pytest.mark.parametrize("spoil", ["nan", "zeros", "missing", "double", "beyond", "ragged"])
def test_an_answer_that_is_spoilt_once_is_asked_for_again(spoil: str):
    stand_in = StandIn(key=KEY, faults=[Fault(spoil=spoil)])
    with stand_in.running() as address:
        asked = client(address)
        vectors, _ = embed(asked)
    np.testing.assert_allclose(vectors, hash_encoder()(TEXTS), atol=1e-6)
    assert asked.counts.retried == 1


def test_rows_are_placed_by_their_index():
    with StandIn(key=KEY, faults=[Fault(spoil="reorder")] * 13).running() as address:
        asked = client(address)
        vectors, _ = embed(asked)
    assert asked.counts.retried == 0
    np.testing.assert_allclose(vectors, hash_encoder()(TEXTS), atol=1e-6)


def test_the_text_that_is_refused_is_set_aside_and_the_others_go_through():
    texts = [*TEXTS[:13], "this text is forbidden", *TEXTS[13:]]
    answers: list[Answer] = []
    with StandIn(key=KEY, marker="forbidden").running() as address:
        (refusal,) = client(address).embed(texts, "document", answers.append, Budget())
    assert (refusal.position, refusal.reason) == (13, "status 400: the input was flagged by a filter")
    placed = np.concatenate([answer.positions for answer in answers])
    assert sorted(placed) == [*range(13), *range(14, 101)]


def test_a_server_that_takes_fewer_texts_at_once_is_asked_for_fewer():
    stand_in = StandIn(key=KEY, max_items=4)
    with stand_in.running() as address:
        vectors, _ = embed(client(address, items=16, concurrency=1))
    assert np.isfinite(vectors).all()
    # 16, 8 and 4 were tried once.
    assert stand_in.counts.refused == 3


def test_what_a_budget_does_not_cover_is_not_sent():
    stand_in = StandIn(key=KEY)
    budget = Budget(max_cost=0.0005, price=0.5)
    answers: list[Answer] = []
    with stand_in.running() as address, pytest.raises(BudgetError, match=r"max_cost: \$0\.000[1-5] of \$0\.0005"):
        client(address).embed([text * 4 for text in TEXTS], "document", answers.append, budget)
    assert budget.spent == stand_in.counts.tokens == sum(answer.tokens for answer in answers)
    assert 0 < (budget.cost or 0) <= 0.0005


def test_answers_that_were_paid_are_handed_over_before_an_error_ends_the_call():
    stand_in = StandIn(key=KEY, faults=[Fault(403, message="no access"), *[Fault(delay=0.2)] * 3])
    answers: list[Answer] = []
    with stand_in.running() as address, pytest.raises(ApiError, match="no access"):
        client(address, concurrency=4).embed(TEXTS, "document", answers.append, Budget())
    assert stand_in.counts.answered == len(answers) == 3


@pytest.mark.parametrize("key", [KEY, "brief-7"])
def test_a_wrong_key_is_said_without_showing_it(key: str):
    with StandIn(key="another").running() as address, pytest.raises(ApiError) as caught:
        embed(client(address, key=key))
    assert "401" in str(caught.value)
    assert key not in str(caught.value)
    assert KEY not in repr(client(address).__dict__)


class Echo(socketserver.StreamRequestHandler):
    """Sends the header with the key back, as no server of HTTP does."""

    def handle(self) -> None:
        while not (line := self.rfile.readline()).lower().startswith(b"authorization"):
            assert line, "the request has a key"
        self.wfile.write(line + b"\x1b[31m\r\n\r\n")


def test_a_server_that_sends_the_key_back_in_no_protocol_does_not_show_it():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        policy = RetryPolicy(first=0.01, tries=2, unreachable=2)
        try:
            with pytest.raises(ApiError, match=r"RemoteProtocolError .*Bearer") as caught:
                embed(client(f"http://127.0.0.1:{server.server_address[1]}", policy=policy, concurrency=1))
        finally:
            server.shutdown()
    assert KEY not in str(caught.value)
    assert str(caught.value).isprintable()


def test_an_answer_that_is_lost_on_its_way_counts_as_paid():
    stand_in, budget = StandIn(key=KEY, faults=[Fault(cut=True)]), Budget()
    with stand_in.running() as address:
        client(address, items=100).embed(TEXTS, "document", lambda _: None, budget)
    assert budget.spent >= stand_in.counts.tokens == 1000


def test_an_address_that_takes_no_connection_costs_nothing_and_is_given_up_soon():
    budget = Budget()
    with socket.socket() as server, socket.socket() as first:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        first.connect(server.getsockname())  # the queue is full, and the next connection waits for ever
        service = OpenAiDialect(dialect="openai", model="any", base_url=f"http://127.0.0.1:{server.getsockname()[1]}")
        asked = ApiClient(service, KEY, Limits(timeout=0.1, concurrency=1), QUICK)
        with pytest.raises(ApiError, match="cannot be reached: ConnectTimeout"):
            asked.embed(TEXTS, "document", lambda _: None, budget)
    assert (asked.counts.requests, budget.spent, budget.in_flight) == (3, 0, 0)


def test_it_works_where_a_loop_is_running_as_in_a_notebook():
    async def cell(address: str) -> np.ndarray:
        return embed(client(address))[0]

    with StandIn(key=KEY).running() as address:
        vectors = asyncio.run(cell(address))
    np.testing.assert_allclose(vectors, hash_encoder()(TEXTS), atol=1e-6)


def test_an_error_of_the_caller_ends_the_call_and_is_not_swallowed():
    def full(_: Answer) -> None:
        raise OSError("no space left on device")

    stand_in = StandIn(key=KEY)
    with stand_in.running() as address, pytest.raises(OSError, match="no space"):
        client(address, concurrency=2).embed(TEXTS, "document", full, Budget())
    assert stand_in.counts.requests <= 2


def test_no_more_is_in_flight_than_the_limits_say():
    at_once, most = 0, 0

    def slowly(texts: Sequence[str]) -> np.ndarray:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.03)
        at_once -= 1
        return hash_encoder()(texts)

    with StandIn(slowly, key=KEY).running() as address:
        embed(client(address, concurrency=3))
    assert most == 3


@pytest.mark.parametrize("usage", ["null", "[]", '{"prompt_tokens": "12"}', '{"prompt_tokens": -1}', "{}"])
def test_a_count_of_tokens_that_cannot_be_one_is_replaced_by_the_upper_bound(usage: str):
    vector = [1.0] + [0.0] * 31
    body = f'{{"data": [{{"index": 0, "embedding": {vector}}}], "usage": {usage}}}'
    budget = Budget()
    with StandIn(key=KEY, faults=[Fault(body=body)]).running() as address:
        client(address).embed(["four words of text"], "document", lambda _: None, budget)
    assert budget.spent == bound_tokens("four words of text")


def test_a_message_moves_no_cursor_and_is_cut():
    fault = Fault(403, message="\x1b[2J\x07no\naccess " + "very " * 999)
    with StandIn(key=KEY, faults=[fault]).running() as address, pytest.raises(ApiError) as caught:
        embed(client(address))
    assert str(caught.value).isprintable()
    assert "no access very" in str(caught.value)
    assert len(str(caught.value)) < 600


def random_fault(random: Random) -> Fault:
    passing = Fault(random.choice([408, 500, 503]), headers=random.choice([{}, {"retry-after-ms": "5"}]))
    spoilt = Fault(spoil=random.choice(["nan", "missing", "double"]))
    late = Fault(delay=random.random() / 50)
    kinds = [Fault(), late, Fault(spoil="reorder"), passing, spoilt, Fault(cut=True)]
    return random.choices(kinds, [9, 3, 2, 2, 1, 1])[0]


@pytest.mark.parametrize("seed", range(2))
def test_whatever_goes_wrong_each_text_is_answered_once_and_rightly(seed: int):
    random = Random(seed)
    guilty = {position for position in range(300) if random.random() < 0.02}
    texts = [f"forbidden {number}" if number in guilty else f"text {number}" for number in range(300)]
    stand_in = StandIn(key=KEY, marker="forbidden", faults=[random_fault(random) for _ in range(200)])
    stand_in.faults[20] = Fault(429)
    answers: list[Answer] = []
    policy = RetryPolicy(first=0.002, longest=0.01, tries=20, answers=10)
    with stand_in.running() as address:
        asked = client(address, policy=policy, concurrency=5, items=7)
        refusals = asked.embed(texts, "document", answers.append, Budget())
    assert [refusal.position for refusal in refusals] == sorted(guilty)
    placed = np.concatenate([answer.positions for answer in answers])
    assert sorted(placed) == sorted(set(range(300)) - guilty)
    vectors = np.concatenate([answer.vectors for answer in answers])
    np.testing.assert_allclose(vectors, hash_encoder()([texts[at] for at in placed]), atol=1e-6)


def test_patience_is_not_used_up_by_standing_in_line():
    # Each request waits for its turn longer than a failing one may be tried.
    policy = RetryPolicy(first=0.01, patience=0.05)
    stand_in = StandIn(key=KEY, faults=[Fault(), Fault(), Fault(), Fault(500)])
    with stand_in.running() as address:
        asked = client(address, policy=policy, requests_per_minute=240, items=25)
        embed(asked)
    assert asked.counts.retried == 1


def test_texts_that_are_known_to_be_too_long_do_not_count_as_refused_by_the_service():
    counter = Counter("words", True, lambda texts: [len(text.split()) for text in texts])
    texts = ["far too long for it"] * 20 + ["forbidden", "fine"]
    stand_in, answers = StandIn(key=KEY, marker="forbidden"), list[Answer]()
    with stand_in.running() as address:
        service = OpenAiDialect(dialect="openai", model="any", base_url=f"{address}/openai/v1")
        asked = ApiClient(service, KEY, Limits(items=8, item_tokens=3), QUICK, counter)
        refusals = asked.embed(texts, "document", answers.append, Budget())
    assert [refusal.position for refusal in refusals] == list(range(21))
    assert [position for answer in answers for position in answer.positions] == [21]
