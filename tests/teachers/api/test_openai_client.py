"""The stand-in is true to the protocol: OpenAI's own client understands it, and gets what our client gets."""

import numpy as np
import openai
import pytest

from stella_assets.teachers.api.budget import Budget
from stella_assets.teachers.api.client import ApiClient
from stella_assets.teachers.api.dialects.openai import OpenAiDialect
from tests.api_server import Fault, StandIn

KEY = "sk-marker-1234567890"
TEXTS = ["one", "two words", "ein dritter, äußerst kurzer Text"]


def test_the_official_client_gets_what_ours_gets():
    stand_in = StandIn(key=KEY)
    with stand_in.running() as address:
        base = f"{address}/openai/v1"
        official = openai.OpenAI(base_url=base, api_key=KEY)
        theirs = official.embeddings.create(model="m", input=TEXTS, dimensions=16)
        answers = []
        service = OpenAiDialect(dialect="openai", model="m", dimensions=16, base_url=base)
        ApiClient(service, KEY).embed(TEXTS, "document", answers.append, Budget())
    vectors = np.array([row.embedding for row in theirs.data], dtype=np.float32)
    np.testing.assert_allclose(vectors, answers[0].vectors, atol=1e-6)
    assert theirs.usage.prompt_tokens == answers[0].tokens
    first, second = stand_in.bodies
    assert first == second
    assert [headers["authorization"] for headers in stand_in.headers] == [f"Bearer {KEY}"] * 2


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(400, message="no such thing"), openai.BadRequestError),
        (Fault(401, message="who are you?"), openai.AuthenticationError),
        (Fault(404, message="no such model"), openai.NotFoundError),
        (Fault(429, message="no more", code="insufficient_quota"), openai.RateLimitError),
        (Fault(500, message="broken"), openai.InternalServerError),
    ],
    ids=lambda value: str(getattr(value, "status", "")),
)
def test_the_official_client_reads_the_errors(fault: Fault, expected: type[openai.APIStatusError]):
    with StandIn(key=KEY, faults=[fault]).running() as address:
        official = openai.OpenAI(base_url=f"{address}/openai/v1", api_key=KEY, max_retries=0)
        with pytest.raises(expected) as caught:
            official.embeddings.create(model="m", input=TEXTS)
    assert fault.message in caught.value.message
    assert (caught.value.code or "") == fault.code


@pytest.mark.parametrize("headers", [{"retry-after-ms": "20"}, {"retry-after": "0.02"}], ids=str)
def test_the_official_client_tries_again_when_it_is_told_to(headers: dict[str, str]):
    stand_in = StandIn(key=KEY, faults=[Fault(429, headers=headers)])
    with stand_in.running() as address:
        openai.OpenAI(base_url=f"{address}/openai/v1", api_key=KEY).embeddings.create(model="m", input=TEXTS)
    assert (stand_in.counts.requests, stand_in.counts.answered) == (2, 1)
