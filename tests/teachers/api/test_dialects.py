"""Each dialect sends the exact requests of its provider, reads its answers, and says what vectors depend on."""

import copy
from collections.abc import Iterator
from contextlib import suppress
from random import Random
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from stella_assets.teachers.api.answers import Answer
from stella_assets.teachers.api.budget import Budget
from stella_assets.teachers.api.client import ApiClient
from stella_assets.teachers.api.dialects import DIALECTS, Dialect
from stella_assets.teachers.api.errors import AnswerError
from stella_assets.teachers.api.limits import Limits
from tests.api_server import StandIn, hash_encoder
from tests.api_server.protocols import PROTOCOLS

KEY = "marker-key-1234567890"
SERVICE = TypeAdapter(DIALECTS.union())
BASES = {
    "openai": "/openai/v1",
    "cohere": "/cohere",
    "voyage": "/voyage/v1",
    "gemini": "/gemini/v1beta",
    "jina": "/jina/v1",
    "mistral": "/mistral/v1",
}
# What the providers' documentation shows, for two texts of the role `query` in 16 dimensions.
BODIES: dict[str, dict[str, Any]] = {
    "openai": {"model": "m", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 16},
    "cohere": {
        "model": "m",
        "input_type": "search_query",
        "texts": ["a", "b"],
        "embedding_types": ["float"],
        "truncate": "END",
        "output_dimension": 16,
    },
    "voyage": {
        "input": ["a", "b"],
        "model": "m",
        "input_type": "query",
        "truncation": True,
        "output_dtype": "float",
        "encoding_format": "base64",
        "output_dimension": 16,
    },
    "gemini": {
        "requests": [
            {
                "model": "models/m",
                "content": {"parts": [{"text": text}]},
                "taskType": "RETRIEVAL_QUERY",
                "outputDimensionality": 16,
            }
            for text in "ab"
        ]
    },
    "jina": {
        "model": "m",
        "input": ["a", "b"],
        "embedding_type": "base64",
        "late_chunking": False,
        "truncate": False,
        "normalized": True,
        "task": "retrieval.query",
        "dimensions": 16,
    },
    "mistral": {
        "model": "m",
        "input": ["a", "b"],
        "output_dtype": "float",
        "encoding_format": "float",
        "output_dimension": 16,
    },
}
URLS = {
    "openai": "https://api.openai.com/v1/embeddings",
    "cohere": "https://api.cohere.com/v2/embed",
    "voyage": "https://api.voyageai.com/v1/embeddings",
    "gemini": "https://generativelanguage.googleapis.com/v1beta/models/m:batchEmbedContents",
    "jina": "https://api.jina.ai/v1/embeddings",
    "mistral": "https://api.mistral.ai/v1/embeddings",
}
WRITTEN = {
    "openai": {"encoding_format": "float", "api_version": "2024-10-21"},
    "voyage": {"encoding_format": None},
    "jina": {"embedding_type": "float"},
}
"""Other settings that do not change vectors."""


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[StandIn, str]]:
    stand_in = StandIn(key=KEY)
    with stand_in.running() as address:
        yield stand_in, address


def service(dialect: str, **settings: Any) -> Dialect:
    made: Dialect = SERVICE.validate_python({"dialect": dialect, "model": "m", **settings})
    return made


def test_every_dialect_has_a_row_in_these_tests():
    assert set(DIALECTS.names()) == set(BODIES) == set(URLS) == set(BASES) == set(PROTOCOLS)


@pytest.mark.parametrize("dialect", DIALECTS.names())
def test_a_request_is_what_the_provider_documents(dialect: str):
    asked = service(dialect, dimensions=16)
    request = asked.request(["a", "b"], "query")
    assert request.body == BODIES[dialect]
    assert asked.base_url + request.path == URLS[dialect]


@pytest.mark.parametrize("dialect", DIALECTS.names())
@pytest.mark.parametrize("role", ["query", "document", "prompt:any"])
def test_a_stand_in_of_the_provider_is_understood(served: tuple[StandIn, str], dialect: str, role: str):
    stand_in, address = served
    texts = [f"text {number}" for number in range(20)]
    answers: list[Answer] = []
    before = stand_in.counts.tokens
    asked = service(dialect, dimensions=16, base_url=address + BASES[dialect])
    ApiClient(asked, KEY, Limits(items=8)).embed(texts, role, answers.append, Budget())
    whole = hash_encoder()(texts)[:, :16]
    for answer in answers:
        expected = whole[answer.positions]
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(answer.vectors, expected, atol=1e-6)
    billed, counted = sum(answer.tokens for answer in answers), stand_in.counts.tokens - before
    # Gemini does not say it, and the upper bound counts.
    assert billed == counted if dialect != "gemini" else billed > counted
    assert KEY not in str(stand_in.bodies)


@pytest.mark.parametrize("dialect", DIALECTS.names())
def test_what_changes_vectors_is_in_the_fingerprint_and_nothing_else(dialect: str):
    plain = service(dialect)
    fields = type(plain).model_fields
    for name, value in WRITTEN.get(dialect, {}).items():
        assert service(dialect, **{name: value}).identity("query") == plain.identity("query")
    changes = {"model": "n", "dimensions": 8, "base_url": "https://example.org/v1", "truncate": "START"}
    for name, value in ({**changes, "truncate": True} if dialect == "jina" else changes).items():
        if name in fields:
            assert service(dialect, **{name: value}).identity("query") != plain.identity("query")
    roles = {plain.input_type("query"), plain.input_type("document")}
    assert len(roles) == (1 if dialect in ("openai", "mistral") else 2)
    assert (plain.identity("query") == plain.identity("document")) == (len(roles) == 1)


ODD = [None, True, 0, -1, 3.5, float("nan"), 10**400, "", "x", "AAAA", "²s", [], {}, [[]], [None], {"a": 1}]


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in an answer."""
    within = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, inner in within:
        yield (*here, part)
        yield from places(inner, (*here, part))


def spoilt(answer: Any, random: Random) -> Any:
    """An answer of which one part is another thing, or is not there."""
    answer = within = copy.deepcopy(answer)
    *way, last = random.choice(list(places(answer)))
    for part in way:
        within = within[part]
    if random.random() < 0.3:
        del within[last]
    else:
        within[last] = random.choice(ODD)
    return answer


@pytest.mark.parametrize("dialect", DIALECTS.names())
def test_an_answer_of_any_other_form_is_an_error_of_the_service(dialect: str):
    asked, protocol, random = service(dialect), PROTOCOLS[dialect], Random(0)
    rows = list(enumerate(np.eye(2, 3, dtype=np.float32)))
    good = protocol.answer(asked.request(["a", "b"], "query").body, rows, 7)
    error = protocol.error(429, "too many", "PerDay")
    if dialect == "gemini":
        error["error"]["details"].append({"@type": "google.rpc.RetryInfo", "retryDelay": "3.5s"})
        assert asked.problem(error).wait == 3.5
    used = 0
    for _ in range(400):
        with suppress(AnswerError):
            parsed = asked.read(spoilt(good, random), 2)
            vectors = asked.accept(parsed.vectors, 3)
            assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
            assert parsed.tokens is None or parsed.tokens > 0
            used += 1
        problem = asked.problem(spoilt(error, random))
        assert isinstance(problem.message, str)
        assert problem.wait is None or problem.wait >= 0
    assert 0 < used < 400


def test_the_name_of_a_server_stands_for_its_address():
    here, there = (f"http://127.0.0.1:{port}/v1" for port in (8001, 8002))
    first, second = (service("openai", base_url=url, server="our_tei") for url in (here, there))
    assert first.identity("query") == second.identity("query")
    assert first.identity("query") != service("openai", base_url=here).identity("query")


def test_a_compatible_server_can_be_told_the_role_and_more():
    asked = service("openai", input_types={"query": "query", "document": "passage"}, extra={"truncate": "END"})
    assert asked.request(["a"], "document").body["input_type"] == "passage"
    assert asked.request(["a"], "document").body["truncate"] == "END"
    assert "input_type" not in asked.request(["a"], "prompt:x").body
    assert asked.identity("query") != asked.identity("document")


def test_older_addresses_of_azure_get_their_version_and_header():
    asked = service("openai", base_url="https://x.openai.azure.com/openai/deployments/e", api_version="2024-10-21")
    assert asked.request(["a"], "query").path == "/embeddings?api-version=2024-10-21"
    assert asked.authorise(KEY) == {"api-key": KEY}


@pytest.mark.parametrize(
    "settings",
    [
        {"dialect": "openai", "base_url": "https://me:secret@example.org/v1"},
        {"dialect": "openai", "base_url": "https://example.org/v1?key=secret"},
        {"dialect": "openai", "base_url": "ftp://example.org"},
        {"dialect": "openai", "base_url": "https://example.org:port/v1"},
        {"dialect": "openai", "base_url": "https://example.org/my server/v1"},
        {"dialect": "openai", "base_url": "https://example.org/v1\n"},
        {"dialect": "openai", "base_url": "https://example.org/\0v1"},
        {"dialect": "openai", "extra": {"input": "another"}},
        {"dialect": "cohere", "input_types": {"query": "search"}},
        {"dialect": "cohere", "input_types": {"query": None}},
        {"dialect": "voyage", "input_types": {"title": "query"}},
        {"dialect": "openai", "model": ""},
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any]):
    with pytest.raises(ValidationError):
        SERVICE.validate_python({"model": "m", **settings})


@pytest.mark.parametrize("dialect", DIALECTS.names())
def test_the_address_of_the_requests_themselves_is_refused(dialect: str):
    with pytest.raises(ValidationError, match=r"base_url: leave out '/.*' at its end"):
        service(dialect, base_url=URLS[dialect])


@pytest.mark.parametrize("model", ["", "  ", " m", "m\n"])
def test_a_model_has_a_name_without_blanks_around_it(model: str):
    with pytest.raises(ValidationError, match="model"):
        service("gemini", model=model)


def test_limits_and_dimensions_are_those_that_the_provider_publishes():
    assert service("openai", model="text-embedding-3-large").dim() == 3072
    assert service("openai", model="text-embedding-3-large").limits().request_tokens == 300_000
    assert service("voyage", model="voyage-4-lite").limits().request_tokens == 1_000_000
    assert service("voyage", model="unheard").limits().request_tokens == 120_000
    assert service("cohere").limits().items == 96
    assert service("cohere").limits().texts_per_minute == 2_000
    assert service("mistral").limits().items == 256
    # Nothing is known of another server.
    assert service("openai", model="text-embedding-3-large", base_url="http://localhost/v1").dim() is None
