"""Texts that are answered by a provider's batch API: handed in once, fetched once, also by the run after a kill."""

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from stella_assets.corpus.text import text_id
from stella_assets.storage.keys import Positions, to_keys
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.api import delivery, ordering
from stella_assets.teachers.api.dialects.openai import OpenAiDialect
from stella_assets.teachers.api.dialects.voyage import VoyageDialect
from stella_assets.teachers.api.errors import ApiError, BudgetError
from stella_assets.teachers.api.model import CANARIES, ApiModel
from stella_assets.teachers.kinds.api import ApiTeacher
from stella_assets.teachers.kinds.base import Wanted
from tests.api_server import StandIn, hash_encoder
from tests.teachers.api.conftest import SmallCorpus, compute_in, opened

TEXTS = [f"text number {number}" for number in range(60)]
Teacher = Callable[..., ApiTeacher]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(ordering, "SMALLEST_ORDER", 10)


def model_of(teacher: Teacher, workspace: Workspace, **more: Any) -> ApiModel:
    return teacher(delivery="batch", **more).open(Path(), compute_in(workspace))


def order(model: ApiModel, texts: list[str] = TEXTS, role: str = "document") -> None:
    def read(at: Positions) -> list[str]:
        return [texts[position] for position in at]

    model.order([Wanted(role, to_keys([text_id(text) for text in texts]), read)])


@pytest.mark.parametrize("dialect", ["openai", "voyage"])
def test_a_batch_gives_the_vectors_of_single_requests(
    dialect: str, stand_in: StandIn, address: str, teacher: Teacher, workspace: Workspace
):
    service = {"dialect": dialect, "model": "any", "base_url": f"{address}/{dialect}/v1", "dimensions": 16}
    model = model_of(teacher, workspace, service=service, dim=None)
    order(model)
    asked = stand_in.counts.requests  # the canaries
    vectors = model.encode(TEXTS, "document")
    expected = hash_encoder()(TEXTS)[:, :16]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-3)
    assert (stand_in.counts.requests, stand_in.counts.batches) == (asked, 1)
    assert stand_in.counts.texts == len(TEXTS) + len(CANARIES)
    # And never again.
    order(model_of(teacher, workspace, service=service, dim=None))
    assert stand_in.counts.batches == 1


def test_a_line_and_an_order_are_what_providers_document():
    openai = OpenAiDialect(dialect="openai", model="m", encoding_format="float")
    request = openai.request(["a"], "document")
    assert openai.batch_line("n-0", request) == {
        "custom_id": "n-0",
        "method": "POST",
        "url": "/v1/embeddings",
        "body": {"model": "m", "input": ["a"], "encoding_format": "float"},
    }
    order = {"input_file_id": "file-1", "endpoint": "/v1/embeddings", "completion_window": "24h"}
    assert openai.batch_order("file-1", request) == order
    voyage = VoyageDialect(dialect="voyage", model="m", dimensions=256)
    request = voyage.request(["a"], "query")
    assert voyage.batch_line("n-0", request) == {"custom_id": "n-0", "body": {"input": ["a"]}}
    settings = {"model": "m", "input_type": "query", "truncation": True, "output_dtype": "float"}
    assert voyage.batch_order("file-1", request) == {
        **order,
        "completion_window": "12h",
        "request_params": {**settings, "output_dimension": 256},
    }


class KilledError(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("place", ["upload", "begin", "look", "results"])
def test_a_run_that_is_killed_anywhere_does_not_hand_in_twice(
    place: str,
    stand_in: StandIn,
    teacher: Teacher,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    real = getattr(delivery.BatchService, place)

    def kill(*arguments: Any) -> Any:
        result = real(*arguments)
        if place == "results":
            next(result)
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(delivery.BatchService, place, kill)
        with pytest.raises(KilledError):
            order(model_of(teacher, workspace))
    model = model_of(teacher, workspace)
    with caplog.at_level(logging.INFO):
        order(model)
    assert ("60 texts was handed in by an earlier run" in caplog.text) == (place != "upload")
    np.testing.assert_allclose(model.encode(TEXTS, "document"), hash_encoder()(TEXTS), atol=1e-3)
    assert stand_in.counts.batches == 1
    assert stand_in.counts.texts == len(TEXTS) + len(CANARIES)


@pytest.mark.parametrize("newer", [0, 250])
def test_a_batch_whose_answer_was_lost_is_found_again(
    newer: int, stand_in: StandIn, teacher: Teacher, workspace: Workspace
):
    stand_in.lose_batch_answers = 1
    with pytest.raises(ApiError, match="not begun twice"):
        order(model_of(teacher, workspace))
    stand_in.other_batches = newer  # of the same account, on further pages of the list
    order(model_of(teacher, workspace))
    assert stand_in.counts.batches == 1


def test_what_a_batch_does_not_answer_is_asked_for_outside(stand_in: StandIn, teacher: Teacher, workspace: Workspace):
    stand_in.marker = "forbidden"
    texts = [*TEXTS[:30], "a forbidden text", *TEXTS[30:]]
    model = model_of(teacher, workspace)
    order(model, texts)
    assert stand_in.counts.texts == len(CANARIES) + 61 - 8  # one request of eight texts was not answered
    np.testing.assert_allclose(model.encode(TEXTS, "document"), hash_encoder()(TEXTS), atol=1e-3)
    assert stand_in.counts.texts == len(CANARIES) + len(TEXTS)


@pytest.mark.parametrize("spoil", ["nan", "missing", "dimensions"])
def test_a_line_that_cannot_be_used_costs_its_own_texts_alone(
    spoil: str, stand_in: StandIn, teacher: Teacher, workspace: Workspace
):
    stand_in.batch_spoils = [spoil]
    model = model_of(teacher, workspace)
    order(model)
    before = stand_in.counts.texts
    np.testing.assert_allclose(model.encode(TEXTS, "document"), hash_encoder()(TEXTS), atol=1e-3)
    assert 0 < stand_in.counts.texts - before <= 8


def test_lines_that_nobody_asked_for_are_passed_over(stand_in: StandIn, teacher: Teacher, workspace: Workspace):
    stand_in.odd_lines = ["no JSON", "[]", "{}", '{"custom_id": 7}', '{"custom_id": "another-0", "response": null}']
    model = model_of(teacher, workspace)
    order(model)
    np.testing.assert_allclose(model.encode(TEXTS, "document"), hash_encoder()(TEXTS), atol=1e-3)
    assert stand_in.counts.texts == len(TEXTS) + len(CANARIES)


@pytest.mark.parametrize("words", ["<html>", "[]", "{}", '{"id": 1}'])
def test_what_a_gateway_says_in_place_of_a_batch_is_told(
    words: str, stand_in: StandIn, teacher: Teacher, workspace: Workspace
):
    stand_in.batch_words = words
    with pytest.raises(ApiError, match=re.escape(f"documentation of batches does not say: {words}")):
        order(model_of(teacher, workspace))


@pytest.mark.parametrize("end", ["failed", "expired", "cancelled"])
def test_a_batch_that_fails_says_why_and_the_next_run_orders_again(
    end: str, stand_in: StandIn, teacher: Teacher, workspace: Workspace
):
    stand_in.batch_end = end
    with pytest.raises(ApiError, match=f"{end}: the file cannot be read"):
        order(model_of(teacher, workspace))
    stand_in.batch_end = "completed"
    order(model_of(teacher, workspace))
    assert stand_in.counts.batches == 2


def test_a_batch_that_costs_too_much_is_not_begun(stand_in: StandIn, teacher: Teacher, workspace: Workspace):
    with pytest.raises(BudgetError, match="max_tokens"):
        order(model_of(teacher, workspace, max_tokens=20_000), [text * 40 for text in TEXTS])
    assert stand_in.counts.batches == 0


def test_a_corpus_is_handed_in_whole_before_anything_is_waited_for(
    stand_in: StandIn, teacher: Teacher, workspace: Workspace, tmp_path: Path
):
    corpus = SmallCorpus(tmp_path / "corpus", TEXTS, lambda number: "query" if number % 5 == 0 else "document").texts
    stand_in.batch_seconds = 1.0
    far = teacher(delivery="batch", prompts={"query": "query: "}, unit_rows=16)
    began = time.monotonic()
    vectors = opened(far, tmp_path, workspace, compute_in(workspace))
    assert vectors.fill(corpus, compute_in(workspace), logging.getLogger("test")) == len(TEXTS)
    # One batch for each role, at the same time.
    assert stand_in.counts.batches == 2
    assert time.monotonic() - began < 2 * stand_in.batch_seconds
    assert stand_in.counts.texts == len(CANARIES) + len(TEXTS)
    assert vectors.fill(corpus, compute_in(workspace), logging.getLogger("test")) == 0


def test_few_texts_do_not_wait_for_a_batch(stand_in: StandIn, teacher: Teacher, workspace: Workspace):
    order(model_of(teacher, workspace), TEXTS[:9])
    assert stand_in.counts.batches == stand_in.counts.requests == 0


def test_batches_keep_within_what_a_provider_takes(
    stand_in: StandIn, teacher: Teacher, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    form = OpenAiDialect.batch_form
    assert form is not None
    monkeypatch.setattr(OpenAiDialect, "batch_form", type(form)(requests=2, texts=25, bytes=form.bytes, window="24h"))
    model = model_of(teacher, workspace)
    order(model)
    # 25 texts are 4 requests of 8, so 2 batches; twice; and one of 10 texts.
    assert stand_in.counts.batches == 5
    np.testing.assert_allclose(model.encode(TEXTS, "document"), hash_encoder()(TEXTS), atol=1e-3)


def test_a_dialect_without_batches_is_refused(teacher: Teacher):
    with pytest.raises(ValidationError, match="'mistral' has no batch API"):
        teacher(delivery="batch", service={"dialect": "mistral", "model": "mistral-embed"}, dim=None)
