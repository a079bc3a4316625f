"""Scores that services give: exact requests, nothing paid twice, faults, and what is left out."""

import json
import logging
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import TypeAdapter, ValidationError

from stella_assets.core.devices import Compute
from stella_assets.core.runner import Runner
from stella_assets.core.services import Services
from stella_assets.corpus.text import text_id
from stella_assets.pipelines.views import connect
from stella_assets.recipe.preflight import check_access
from stella_assets.storage.journal import Journal
from stella_assets.storage.journal_repair import damaged_journals
from stella_assets.teachers.api.errors import ApiError, BudgetError
from stella_assets.teachers.scorers import PAIR_SCORERS, Scoring, asked
from stella_assets.teachers.scorers.asked import split_scores
from stella_assets.teachers.scorers.dialects import RERANK_DIALECTS
from stella_assets.teachers.scorers.paid import PaidScorer
from tests.api_server import Fault, StandIn
from tests.api_server.encoders import word_judge
from tests.teachers.scorers import fault_cases
from tests.teachers.scorers.conftest import World, answer, other, query

KEY, VARIABLE = "sk-marker-0123456789abcdef", "STAND_IN_KEY"
CONFIG: TypeAdapter[Any] = TypeAdapter(PAIR_SCORERS.union())
TERMS = {"distribution": "internal", "url": "https://example.com/terms", "read_on": "2026-11-27"}
DIALECTS = RERANK_DIALECTS.names()


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn(key=KEY)


@pytest.fixture
def address(stand_in: StandIn) -> Iterator[str]:
    with stand_in.running() as address:
        yield address


def scorer(address: str, dialect: str = "voyage", service: dict[str, Any] | None = None, **more: Any) -> PaidScorer:
    chat = dialect == "chat"
    path = {"cohere": "/cohere", "chat": "/openai/v1"}.get(dialect, f"/{dialect}/v1")
    made: PaidScorer = CONFIG.validate_python(
        {
            "name": "far",
            "kind": "llm_judge" if chat else "rerank_api",
            "service": {"dialect": "openai" if chat else dialect, "model": "any", "base_url": address + path}
            | {"server": "stand-in"}
            | (service or {}),
            "key": VARIABLE,
            "price": 0.5,
            "terms": TERMS,
            **more,
        }
    )
    return made


def paid(world: World, key: str | None = KEY) -> World:
    """The same world with a key in its environment."""
    services = Services(world.workspace, {VARIABLE: key}.get, "tiny")
    world.runner = Runner(world.workspace, logging.getLogger("test"), Compute("cpu", services=services))
    return world


def expected(row: dict[str, Any]) -> float:
    texts = {text_id(text): text for n in range(9) for text in (query(n), answer(n), other(n))}
    return float(word_judge()(texts[row["query"]], [texts[row["document"]]])[0])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_dialect_scores_every_pair_with_one_request_for_each_query(world, stand_in, address, dialect):
    # Rows come with the best document first, so they are put back by their index.
    table, artefact = paid(world).score(scorer(address, dialect))
    assert len(table) == 24
    assert [row["score"] for row in table.iter_rows(named=True)] == pytest.approx(
        [expected(row) for row in table.iter_rows(named=True)], abs=1e-6
    )
    assert stand_in.counts.requests == 6
    metrics = artefact.manifest.metrics
    assert (metrics["scored_now"], metrics["left_out"]) == (24, {})
    tokens = 6 if dialect == "cohere" else metrics["cost"]["tokens"]
    assert metrics["cost"] == {"texts": 24, "requests": 6, "tokens": tokens, "dollars": round(tokens * 0.5e-6, 6)}
    with connect(world.workspace, "tiny") as connection:
        rows = connection.execute("SELECT recipe, teacher, purpose, sum(texts) FROM api_costs GROUP BY ALL").fetchall()
    assert rows == [("tiny", "far", "scores", 24)]


def test_nothing_is_paid_twice_by_another_recipe_or_after_the_artefact_is_gone(world, stand_in, address):
    first, _ = paid(world).score(scorer(address))
    before = stand_in.counts.requests
    # Another name, price and key: the same service, and so the same answers.
    second, artefact = world.score(scorer(address, name="again", price=9, key="OTHER"), recipe="other")
    assert stand_in.counts.requests == before
    assert second.equals(first)
    assert artefact.manifest.metrics["scored_now"] == 0
    # Another setting that decides scores is another service.
    world.score(scorer(address, service={"truncation": False}))
    assert stand_in.counts.requests == 2 * before


def test_a_run_that_stops_in_the_middle_goes_on_where_it_was(world, stand_in, address, monkeypatch):
    monkeypatch.setattr(asked, "UNIT_PAIRS", 8)
    stand_in.faults.extend([Fault(), Fault(), Fault(), Fault(403, message="no more")])
    one_by_one = {"limits": {"concurrency": 1}}
    with pytest.raises(ApiError, match="refuses with status 403: no more"):
        paid(world).score(scorer(address, **one_by_one))
    assert stand_in.counts.answered == 3
    table, _ = world.score(scorer(address, **one_by_one))
    assert (stand_in.counts.answered, len(table)) == (6, 24)


@pytest.mark.parametrize("spoil", ["nan", "missing", "double", "beyond"])
def test_an_answer_that_is_not_one_finite_score_for_each_document_is_asked_for_again(world, stand_in, address, spoil):
    stand_in.faults.extend([Fault(spoil=spoil)])
    table, _ = paid(world).score(scorer(address))
    assert (len(table), stand_in.counts.requests) == (24, 7)
    stand_in.faults.extend([Fault(spoil=spoil)] * 12)
    with pytest.raises(ApiError, match="gives an answer that cannot be used") as found:
        world.score(scorer(address, service={"model": "second"}, limits={"concurrency": 1}))
    words = {"nan": "not finite", "missing": "4 texts were sent, and 3 scores came back", "double": "two rows",
             "beyond": "a row has the index 4, and 4 texts were sent"}  # fmt: skip
    assert words[spoil] in found.value.message


def test_the_services_own_errors_are_clear_and_show_no_key(world, stand_in, address):
    with pytest.raises(ApiError, match=r"status 401: Incorrect API key provided: \*\*\*") as found:
        paid(world, "sk-wrong-0123456789abcdef").score(scorer(address))
    assert "Set the environment variable that `key` names" in found.value.remedy
    stand_in.faults.extend([Fault(429, headers={"retry-after": "0.05"})])
    table, _ = paid(world).score(scorer(address, limits={"concurrency": 1}))
    assert (len(table), stand_in.counts.too_many) == (24, 1)


def test_a_document_that_the_service_refuses_is_left_out_and_never_sent_again(world, stand_in, address):
    stand_in.marker = "number 2 is red"  # of answer 2: a candidate of queries 1 and 2
    table, artefact = paid(world).score(scorer(address))
    assert len(table) == 22
    assert text_id(answer(2)) not in set(table["document"])
    assert artefact.manifest.metrics["left_out"] == {"status 400: the input was flagged by a filter": 2}
    (check,) = [each for each in artefact.manifest.checks if each.name == "every_pair_has_a_score"]
    assert (check.passed, check.description) == (False, "2 of 24 pairs have no score")
    before = stand_in.counts.requests
    world.score(scorer(address, name="again"))
    assert stand_in.counts.requests == before


def test_max_cost_stops_before_it_is_exceeded_and_the_plan_says_what_is_left(world, stand_in, address):
    step = paid(world).step(scorer(address))
    plan = step.estimated(world.runner, None, None)
    assert plan.work == "24 of 24 pairs to score"
    assert plan.tokens > 24 * 60
    assert plan.money == pytest.approx(plan.tokens * 0.5e-6)
    assert plan.charges.endswith("(price of the recipe)")
    # What is billed is less than the upper bound, which the next request counts with.
    budget = scorer(address, max_cost=0.5e-6 * plan.tokens / 4, limits={"concurrency": 1})
    with pytest.raises(BudgetError, match="max_cost: "):
        world.score(budget)
    left = step.estimated(world.runner, None, None)
    assert 0 < left.texts < 24
    assert stand_in.counts.texts == 24 - left.texts
    searches = world.step(scorer(address, "cohere")).estimated(world.runner, None, None)
    assert (searches.tokens, searches.charges[:11]) == (6, "6 searches ")
    assert stand_in.counts.texts == 24 - left.texts
    with pytest.raises(ValidationError, match="max_cost: the price of this model is not known"):
        scorer(address, price=None, max_cost=1)


def test_before_the_pairs_are_made_the_plan_says_that_the_price_is_unknown(world, address):
    step = world.step(scorer(address))
    empty = Runner(type(world.workspace)(world.workspace.root / "empty"), logging.getLogger("test"), Compute())
    plan = step.estimated(empty, None, None)
    assert (plan.money, plan.charges) == (None, "unknown, as the pairs are not made yet")


def test_a_missing_key_is_named_before_anything_is_done(world, address):
    with pytest.raises(Exception, match="pair_scores 'far': the environment variable STAND_IN_KEY is not set"):
        check_access([scorer(address)], Services(world.workspace, {}.get))


def test_a_judge_gives_the_logit_of_yes_and_a_grade_where_it_is_asked_for_one(world, stand_in, address):
    table, _ = paid(world).score(scorer(address, "chat"))
    for row in table.iter_rows(named=True):
        chance = expected(row)
        # The two tokens that mean yes count together; the third one does not.
        assert row["score"] == pytest.approx(math.log(0.99 * chance) - math.log(0.99 * (1 - chance)), abs=1e-5)
    (body, *_), count = list(stand_in.bodies), stand_in.counts.requests
    assert count == 24
    assert body["messages"][0]["content"].endswith("Answer with one word, yes or no.")
    assert (body["temperature"], body["max_tokens"], body["logprobs"]) == (0, 1, True)
    grades, _ = world.score(scorer(address, "chat", {"answer": "grade"}))
    assert [row["score"] for row in grades.iter_rows(named=True)] == [
        round(10 * expected(row)) for row in grades.iter_rows(named=True)
    ]
    assert "logprobs" not in stand_in.bodies[-1]


@pytest.mark.parametrize("form", ["yes_no", "grade"])
def test_what_a_judge_writes_beside_the_point_is_paid_counted_and_left_out(world, stand_in, address, form):
    plain = word_judge()
    stand_in.judge = lambda query, texts: np.where(["number 2 is red" in t for t in texts], np.nan, plain(query, texts))
    table, artefact = paid(world).score(scorer(address, "chat", {"answer": form}))
    assert len(table) == 22
    reason = {"yes_no": "neither yes nor no is among the most likely answers",
              "grade": "the answer is not a whole number from 0 to 10"}[form]  # fmt: skip
    assert artefact.manifest.metrics["left_out"] == {reason: 2}
    assert stand_in.counts.requests == 24
    with connect(world.workspace, "tiny") as connection:
        rows = connection.execute("SELECT sum(requests), sum(texts) FROM api_costs").fetchall()
    assert rows == [(24, 22)]
    world.score(scorer(address, "chat", {"answer": form}, name="again"))
    assert stand_in.counts.requests == 24


def test_a_judge_that_never_answers_stops_after_a_few_pairs(world, stand_in, address):
    stand_in.faults.extend([Fault(body=json.dumps({"choices": [{"message": {"content": "Yes"}}]}))] * 24)
    with pytest.raises(ApiError, match=r"has no logprobs; state `answer: grade`.* So it is with every text"):
        paid(world).score(scorer(address, "chat", limits={"concurrency": 1}))
    assert stand_in.counts.requests == 8


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"service": {"prompt": "Query: {query}"}}, "prompt needs both"),
        ({"service": {"extra": {"messages": []}}}, "extra has 'messages', which another setting decides"),
        ({"limits": {"items": 8}}, "limits.items 8: a judge reads one document at a time"),
    ],
)
def test_settings_of_a_judge_that_cannot_work_are_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        scorer("http://localhost", "chat", **settings)


def test_texts_with_the_names_of_places_are_put_in_as_they_are():
    service = scorer("http://localhost", "chat").service
    (_, user) = service.request(["a {query} text"], "what is {document}?").body["messages"]
    assert user["content"] == "Query: what is {document}?\n\nDocument: a {query} text"


def test_numbers_that_openai_writes_for_impossible_tokens_give_a_finite_logit():
    service = scorer("http://localhost", "chat").service
    top = [{"token": "Yes", "logprob": 0.0}, {"token": "x", "logprob": -9999.0}]
    parsed = service.read({"choices": [{"logprobs": {"content": [{"top_logprobs": top}]}}]}, 1)
    assert parsed.vectors.item() == pytest.approx(50.0)


def test_a_damaged_record_is_asked_for_again_and_scores_keep_their_precision(world, stand_in, address, tmp_path):
    table, _ = paid(world).score(scorer(address))
    (file,) = (world.workspace.api).rglob("*.journal")
    content = bytearray(file.read_bytes())
    content[-2] ^= 255
    file.write_bytes(content)
    again, artefact = world.score(scorer(address, name="again"))
    assert again.equals(table)
    assert (artefact.manifest.metrics["scored_now"], stand_in.counts.requests) == (4, 7)
    assert [each.file for each in damaged_journals(world.workspace.api)] == [file]
    scores = np.random.default_rng(0).normal(size=1000).astype(np.float32) * 7
    assert Journal(tmp_path / "j", 2).append(np.arange(1000).astype("S16"), split_scores(scores), {}).astype(
        np.float64
    ).sum(1) == pytest.approx(scores, rel=3e-7, abs=4e-8)


def test_pairs_with_a_text_that_the_corpus_lacks_are_counted(world, address):
    corpus = world.steps["corpus"]
    candidates = pl.DataFrame(
        [{"query": text_id(query(1)), "document": text_id(text)} for text in (answer(1), "a text from nowhere")]
    )
    scoring = Scoring(paid(world).runner.read(corpus), world.workspace, world.runner.compute, logging.getLogger("test"))
    scored = scorer(address).score(candidates, scoring)
    assert np.isnan(scored.scores_N).tolist() == [False, True]
    assert scored.left_out == {"a text that the corpus does not have": 1}


def test_the_page_says_what_comes_of_each_fault():
    (shown,) = fault_cases.TABLE.findall(fault_cases.PAGE.read_text(encoding="utf-8"))
    assert shown == fault_cases.table()
