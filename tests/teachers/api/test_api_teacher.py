import logging
import re
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from stella_assets.core.errors import UserError
from stella_assets.core.progress import Pace, progress_in
from stella_assets.core.services import MissingSecretError
from stella_assets.corpus.text import text_id
from stella_assets.storage.journal_repair import damaged_journals, mend_journal
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.api.canaries import CANARIES
from stella_assets.teachers.api.errors import ApiError, BudgetError
from stella_assets.teachers.api.model import EpochError, _observed
from stella_assets.teachers.kinds.api import ApiTeacher
from stella_assets.teachers.refusal import RefusedTextsError
from tests.api_server import Fault, StandIn, hash_encoder
from tests.teachers.api.conftest import DIM, KEY, LOG, VARIABLE, SmallCorpus, compute_in, opened, settings

Teacher = Callable[..., ApiTeacher]
TEXTS = [f"a sentence about number {number} and its neighbours" for number in range(40)]


def test_vectors_are_those_of_the_service_in_the_order_of_the_texts(
    teacher: Teacher, stand_in: StandIn, workspace: Workspace
) -> None:
    model = teacher().open(Path(), compute_in(workspace))
    asked = [*TEXTS, TEXTS[3]]
    assert np.array_equal(model.encode(asked, "document"), stand_in.encode(asked).astype(np.float16))
    assert stand_in.counts.texts == len(TEXTS) + len(CANARIES)  # a text that repeats is sent once


def test_what_was_answered_is_not_sent_again_also_by_another_process(
    teacher: Teacher, stand_in: StandIn, workspace: Workspace
) -> None:
    first = teacher().open(Path(), compute_in(workspace)).encode(TEXTS, "document")
    sent = stand_in.counts.texts
    _observed.clear()
    again = teacher().open(Path(), compute_in(workspace))
    assert np.array_equal(again.encode(TEXTS[::-1], "document"), first[::-1])
    assert stand_in.counts.texts == sent  # not even canaries: there was nothing to pay for


def test_answers_before_an_error_are_kept(teacher: Teacher, stand_in: StandIn, workspace: Workspace) -> None:
    model = teacher(limits={"items": 8, "concurrency": 1}).open(Path(), compute_in(workspace))
    # Eight requests of canaries and two of texts are answered, and the key is taken away.
    stand_in.faults.extend([Fault()] * 10 + [Fault(401, message="no such key")])
    with pytest.raises(ApiError, match="no such key"):
        model.encode(TEXTS, "document")
    assert stand_in.counts.texts == len(CANARIES) + 16
    model.encode(TEXTS, "document")
    assert stand_in.counts.texts == len(CANARIES) + len(TEXTS)


def test_a_refused_text_is_named_and_all_others_are_answered_once(
    teacher: Teacher, stand_in: StandIn, workspace: Workspace
) -> None:
    stand_in.marker = "number 7 "
    model = teacher().open(Path(), compute_in(workspace))
    for _ in range(2):
        with pytest.raises(RefusedTextsError, match="number 7 ") as refused:
            model.encode(TEXTS, "document")
        assert refused.value.positions.tolist() == [7]
    others = [text for text in TEXTS if "number 7 " not in text]
    assert np.array_equal(model.encode(others, "document"), stand_in.encode(others).astype(np.float16))
    assert stand_in.counts.texts == len(CANARIES) + len(others)
    assert list(model.refused("document")) == [text_id(TEXTS[7])]


@pytest.mark.parametrize("spoil", ["nan", "dimensions", "missing", "zeros", "double"])
def test_an_answer_that_is_wrong_is_not_stored(
    teacher: Teacher, stand_in: StandIn, workspace: Workspace, spoil: str
) -> None:
    model = teacher(limits={"items": 64, "concurrency": 1}).open(Path(), compute_in(workspace))
    model.encode(TEXTS[:1], "document")
    stand_in.faults.extend([Fault(spoil=spoil)] * 9)
    with pytest.raises(ApiError):
        model.encode(TEXTS, "document")
    stand_in.faults.clear()
    assert len(model.journal("document")) == 1
    assert np.array_equal(model.encode(TEXTS, "document"), stand_in.encode(TEXTS).astype(np.float16))


def test_vectors_of_other_dimensions_than_stated_are_refused_at_the_first_answer(
    teacher: Teacher, stand_in: StandIn, workspace: Workspace
) -> None:
    model = teacher(dim=48, limits={"items": 64, "concurrency": 1}).open(Path(), compute_in(workspace))
    with pytest.raises(ApiError, match=f"its vectors have {DIM} dimensions, not 48") as refused:
        model.encode(TEXTS, "document")
    assert "`dim`" in refused.value.remedy
    assert stand_in.counts.requests == 1


def test_the_budget_counts_what_was_paid_before(teacher: Teacher, stand_in: StandIn, workspace: Workspace) -> None:
    model = teacher().open(Path(), compute_in(workspace))
    model.encode(TEXTS[:8], "document")
    spent = stand_in.counts.tokens
    little = {"max_tokens": spent + 300, "limits": {"items": 1, "concurrency": 2}}
    small = teacher(**little).open(Path(), compute_in(workspace))
    with pytest.raises(BudgetError, match="max_tokens"):
        small.encode(TEXTS, "document")
    assert stand_in.counts.tokens <= spent + 300
    kept = len(small.journal("document"))
    assert 8 < kept < len(TEXTS)
    _observed.clear()
    with pytest.raises(BudgetError):
        teacher(**little).open(Path(), compute_in(workspace)).encode(TEXTS, "document")
    assert stand_in.counts.tokens <= spent + 300


def test_another_model_behind_the_name_is_a_new_epoch(
    teacher: Teacher, stand_in: StandIn, workspace: Workspace
) -> None:
    before = teacher().open(Path(), compute_in(workspace))
    old = before.encode(TEXTS[:4], "document")
    stand_in.encode = hash_encoder(model="second")
    _observed.clear()
    sent = stand_in.counts.texts
    with pytest.raises(EpochError, match="another model answers"):
        teacher().open(Path(), compute_in(workspace)).encode(TEXTS, "document")
    assert stand_in.counts.texts == sent + len(CANARIES)  # nothing but canaries was sent
    now = teacher().open(Path(), compute_in(workspace))
    assert now.fingerprint("document") != before.fingerprint("document")
    new = now.encode(TEXTS[:4], "document")
    assert np.array_equal(new, stand_in.encode(TEXTS[:4]).astype(np.float16))
    # The service goes back: it is the first epoch again, whose vectors are all there.
    stand_in.encode = hash_encoder(model="first")
    _observed.clear()
    with pytest.raises(EpochError):
        teacher().open(Path(), compute_in(workspace)).encode(TEXTS, "document")
    again = teacher().open(Path(), compute_in(workspace))
    assert again.fingerprint("document") == before.fingerprint("document")
    assert np.array_equal(again.encode(TEXTS[:4], "document"), old)


def test_small_differences_are_told_and_are_no_new_epoch(
    teacher: Teacher, stand_in: StandIn, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    teacher().open(Path(), compute_in(workspace)).encode(TEXTS[:4], "document")
    encode = stand_in.encode

    def shaken(texts: list[str]) -> np.ndarray:
        rows = encode(texts) + np.random.default_rng(0).normal(scale=5e-4, size=(len(texts), DIM)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    stand_in.encode = shaken  # type: ignore[assignment]
    _observed.clear()
    with caplog.at_level(logging.WARNING):
        teacher().open(Path(), compute_in(workspace)).encode(TEXTS[:6], "document")
    assert "a little differently" in caplog.text


@pytest.mark.parametrize(("cosine", "epoch"), [(0.99985, 2), (0.99995, 1)])
def test_a_cosine_below_0_9999_of_one_fixed_text_is_another_model(
    cosine: float, epoch: int, teacher: Teacher, stand_in: StandIn, workspace: Workspace
) -> None:
    teacher().open(Path(), compute_in(workspace)).encode(TEXTS[:1], "document")
    encode = stand_in.encode

    def turned(texts: list[str]) -> np.ndarray:
        rows = encode(texts)
        if CANARIES[5] in texts:
            row = rows[texts.index(CANARIES[5])]
            across = np.eye(DIM)[0] - row[0] * row
            row[:] = cosine * row + np.sqrt(1 - cosine**2) * across / np.linalg.norm(across)
        return rows

    stand_in.encode = turned  # type: ignore[assignment]
    _observed.clear()
    with suppress(EpochError):
        teacher().open(Path(), compute_in(workspace)).encode(TEXTS, "document")
    assert teacher().open(Path(), compute_in(workspace)).describe("document")["epoch"] == epoch


def test_progress_tells_texts_time_left_tokens_and_money(
    teacher: Teacher, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Pace, "due", lambda _: True)
    model = teacher().open(Path(), compute_in(workspace))
    with caplog.at_level(logging.INFO), progress_in(LOG):
        model.encode(TEXTS, "document")
    line = r"far: (8|16|24|32) of 40 texts, \d+ texts/s, .+ left, [\d,]+ tokens, \$0\.\d{4} in all"
    assert [message for message in caplog.messages if re.fullmatch(line, message)]


def test_nothing_is_sent_before_the_settings_fit(stand_in: StandIn, address: str, workspace: Workspace) -> None:
    make = lambda **more: ApiTeacher.model_validate(settings(address, **more))  # noqa: E731
    model = make().open(Path(), compute_in(workspace, None))
    with pytest.raises(MissingSecretError, match=VARIABLE) as missing:
        model.encode(TEXTS, "document")
    assert f"export {VARIABLE}" in missing.value.remedy
    with pytest.raises(MissingSecretError, match=VARIABLE):
        make().check_access(compute_in(workspace, None).services)
    with pytest.raises(UserError, match="no role 'prompt:x'"):
        make().open(Path(), compute_in(workspace)).encode(TEXTS, "prompt:x")
    for wrong in ({"dim": None}, {"service": {"dialect": "openai", "model": "m", "dimensions": 8}}, {"terms": None}):
        with pytest.raises(ValidationError):
            make(**wrong)
    assert stand_in.counts.requests == 0


def test_neither_key_nor_number_format_nor_address_is_part_of_the_fingerprint(
    address: str, workspace: Workspace
) -> None:
    def fingerprint(**more: object) -> str:
        return (
            ApiTeacher.model_validate(settings(address, **more))
            .open(Path(), compute_in(workspace))
            .fingerprint("query")
        )

    service = settings(address)["service"]
    same = [
        {"key": None}, {"price": 1.0}, {"max_tokens": 5}, {"service": {**service, "encoding_format": "float"}},
        {"service": {**service, "base_url": "http://127.0.0.1:1/v1"}},
    ]  # fmt: skip
    other = [
        {"prompts": {"query": "query: "}}, {"service": {**service, "dimensions": DIM}},
        {"service": {**service, "model": "another"}}, {"service": {**service, "server": "elsewhere"}},
    ]  # fmt: skip
    assert {fingerprint(**more) for more in same} == {fingerprint()}
    assert len({fingerprint(), *(fingerprint(**more) for more in other)}) == 5


def test_a_corpus_is_filled_without_the_texts_that_are_refused(
    teacher: Teacher, stand_in: StandIn, workspace: Workspace, tmp_path: Path
) -> None:
    stand_in.marker = "number 7 "
    corpus = SmallCorpus(tmp_path / "corpus", TEXTS, lambda number: "query" if number % 5 == 0 else "document").texts
    far = teacher(unit_rows=8, prompts={"query": "query: "})
    vectors = opened(far, tmp_path, workspace, compute_in(workspace))
    assert vectors.fill(corpus, compute_in(workspace), LOG) == len(TEXTS) - 1
    assert vectors.fill(corpus, compute_in(workspace), LOG) == 0
    assert vectors.count_missing(corpus) == 0
    assert corpus.take(vectors.left_out(corpus), ["text"]).column("text").to_pylist() == [TEXTS[7]]
    for batch in vectors.taken(corpus).scan(["id", "text", "role"]):
        texts, roles = batch.column("text").to_pylist(), batch.column("role").to_pylist()
        sent = [("query: " if role == "query" else "") + text for text, role in zip(texts, roles, strict=True)]
        found = vectors.fetch(batch.column("id").to_pylist(), roles)
        assert np.array_equal(found, stand_in.encode(sent).astype(np.float16))
    assert stand_in.counts.texts == len(CANARIES) + len(TEXTS) - 1


def test_a_table_that_is_lost_is_filled_from_the_journal(
    teacher: Teacher, stand_in: StandIn, workspace: Workspace, tmp_path: Path
) -> None:
    import shutil

    corpus = SmallCorpus(tmp_path / "corpus", TEXTS).texts
    first = opened(teacher(), tmp_path, workspace, compute_in(workspace))
    first.fill(corpus, compute_in(workspace), LOG)
    digest, sent = first.digest(corpus), stand_in.counts.texts
    shutil.rmtree(workspace.vectors)
    again = opened(teacher(), tmp_path, workspace, compute_in(workspace, None))  # without a key
    assert again.fill(corpus, compute_in(workspace, None), LOG) == len(TEXTS)
    assert again.digest(corpus) == digest
    assert stand_in.counts.texts == sent


def test_damage_of_the_journal_is_named_and_its_texts_are_asked_again(
    teacher: Teacher, stand_in: StandIn, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    first = teacher().open(Path(), compute_in(workspace)).encode(TEXTS, "document")
    assert list(damaged_journals(workspace.api)) == []
    (file,) = workspace.api.glob("*/journal/*/*.journal")
    content = bytearray(file.read_bytes())
    content[-5] ^= 1  # in a vector of the last request
    file.write_bytes(content)
    (named,) = damaged_journals(workspace.api)
    assert (named.file, named.rows) == (file, 8)
    assert "1 of 5 records" in named.what
    sent = stand_in.counts.texts
    assert np.array_equal(teacher().open(Path(), compute_in(workspace)).encode(TEXTS, "document"), first)
    assert stand_in.counts.texts == sent + 8
    assert f"{file} at byte" in caplog.text
    mend_journal(workspace.root, file)
    assert list(damaged_journals(workspace.api)) == []
    assert not file.exists()
    assert [path.read_bytes() for path in (workspace.root / ".damaged").iterdir()] == [bytes(content)]
    assert np.array_equal(teacher().open(Path(), compute_in(workspace)).encode(TEXTS, "document"), first)
    assert stand_in.counts.texts == sent + 8


def test_the_key_is_in_no_file_of_the_workspace(teacher: Teacher, workspace: Workspace) -> None:
    teacher().open(Path(), compute_in(workspace)).encode(TEXTS, "document")
    files = [path for path in workspace.root.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_the_address_of_the_terms_is_a_link_and_no_other_markup(address: str) -> None:
    for url, shown in (
        ("https://example.com/terms?a=1&b=%20#top", "https://example.com/terms?a=1&b=%20#top"),
        (
            "https://x.example/)![y](https://evil.example/<b>`",
            "https://x.example/%29!%5By%5D%28https://evil.example/%3Cb%3E%60",
        ),
    ):
        terms = {"distribution": "internal", "url": url, "read_on": "2026-11-27"}
        assert ApiTeacher.model_validate(settings(address, terms=terms)).link() == f"[far]({shown})"


@pytest.mark.parametrize(
    "proxy", ["ftp://u:hunter2@h:1", "socks4://u:hunter2@h:1", "socks5://u:hunter2@h:1", "://hunter2"]
)
def test_a_proxy_that_cannot_be_used_is_named_without_its_password(
    proxy: str, teacher: Teacher, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(ApiError, match="the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names cannot") as refused:
        teacher().open(Path(), compute_in(workspace)).encode(TEXTS, "document")
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))
