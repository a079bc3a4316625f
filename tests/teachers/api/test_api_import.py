"""Vectors of a service that were asked for elsewhere become part of its journal."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stella_assets.corpus.text import text_id
from stella_assets.storage.errors import TransferError
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.adopt import AdoptionError, adopt_answers, require_check
from stella_assets.teachers.kinds.api import ApiTeacher
from stella_assets.teachers.vector_files import open_vectors
from tests.api_server import StandIn
from tests.teachers.api.conftest import LOG, SmallCorpus, compute_in, opened

Teacher = Callable[..., ApiTeacher]
TEXTS = [f"text {number} of a corpus that was embedded elsewhere" for number in range(12)]


def write_npy(folder: Path, rows: np.ndarray) -> tuple[Path, Path | None]:
    np.save(folder / "v.npy", 3 * rows)
    (folder / "t.txt").write_text("\n".join(TEXTS) + "\n")
    return folder / "v.npy", folder / "t.txt"


def write_parquet(folder: Path, rows: np.ndarray) -> tuple[Path, Path | None]:
    pq.write_table(pa.table({"text": TEXTS, "embedding": list(rows)}), folder / "v.parquet")
    return folder / "v.parquet", None


def write_ids(folder: Path, rows: np.ndarray) -> tuple[Path, Path | None]:
    lines = [{"id": text_id(text), "embedding": row.tolist()} for text, row in zip(TEXTS, rows, strict=True)]
    lines.insert(2, {"id": "0" * 32, "embedding": rows[0].tolist()})  # of a text that no corpus has
    (folder / "v.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder / "v.jsonl", None


def write_batch(folder: Path, rows: np.ndarray) -> tuple[Path, Path | None]:
    """OpenAI's form: answers and rows in another order than requests and texts, and a request that failed."""
    asked: list[dict[str, Any]] = []
    answered: list[dict[str, Any]] = []
    for start in range(0, len(TEXTS), 4):
        body = {"model": "any", "input": TEXTS[start : start + 4]}
        asked.append({"custom_id": f"r{start}", "method": "POST", "url": "/v1/embeddings", "body": body})
        data = [
            {"index": at, "embedding": base64.b64encode(rows[start + at].astype("<f4").tobytes()).decode()}
            for at in (2, 0, 3, 1)
        ]
        response = {"status_code": 200, "request_id": "x", "body": {"object": "list", "data": data}}
        answered.insert(0, {"id": f"b{start}", "custom_id": f"r{start}", "response": response, "error": None})
    answered.append({"id": "b", "custom_id": "r99", "response": {"status_code": 400, "body": {}}, "error": None})
    (folder / "in.jsonl").write_text("\n".join(map(json.dumps, asked)))
    (folder / "out.jsonl").write_text("\n".join(map(json.dumps, answered)) + "\n")
    return folder / "out.jsonl", folder / "in.jsonl"


@pytest.mark.parametrize("write", [write_npy, write_parquet, write_ids, write_batch])
def test_files_of_each_form_fill_the_journal_and_nothing_of_them_is_sent(
    write: Callable[..., tuple[Path, Path | None]],
    teacher: Teacher,
    stand_in: StandIn,
    workspace: Workspace,
    tmp_path: Path,
) -> None:
    corpus = SmallCorpus(tmp_path / "corpus", [*TEXTS, "a text that was not embedded"]).texts
    vectors, lines = open_vectors(*write(tmp_path, stand_in.encode(TEXTS)), None, "float32", lambda: corpus, tmp_path)
    model = teacher().open(Path(), compute_in(workspace))
    counts = adopt_answers(vectors, lines, model, "document", "far", sample=5)
    assert (counts["rows"], counts["stored"], counts["there_already"]) == (12, 12, 0)
    assert counts["least_cosine"] > 0.9999
    assert stand_in.counts.texts == 5
    assert adopt_answers(vectors, lines, model, "document", "far", sample=0)["there_already"] == 12
    found = opened(teacher(), tmp_path, workspace, compute_in(workspace))
    assert found.fill(corpus, compute_in(workspace), LOG) == 13
    assert stand_in.counts.texts == 5 + 64 + 1
    stored = found.fetch([text_id(text) for text in TEXTS], ["document"] * 12)
    assert np.allclose(stored, stand_in.encode(TEXTS), atol=1e-3)


def test_vectors_of_another_model_are_refused(
    teacher: Teacher, stand_in: StandIn, workspace: Workspace, tmp_path: Path
) -> None:
    vectors, lines = open_vectors(*write_npy(tmp_path, stand_in.encode(TEXTS[::-1])), None, "float32", None, tmp_path)
    model = teacher().open(Path(), compute_in(workspace))
    with pytest.raises(AdoptionError, match="the cosine with what teacher 'far' makes"):
        adopt_answers(vectors, lines, model, "document", "far", sample=5)
    assert len(model.journal("document")) == 0


def test_vectors_that_nobody_checked_are_of_a_teacher_of_their_own(teacher: Teacher, workspace: Workspace) -> None:
    plain, vouched = teacher(), teacher(trusted="from the archive of 2025")
    prints = {each.open(Path(), compute_in(workspace)).fingerprint("document") for each in (plain, vouched)}
    assert len(prints) == 2
    assert plain.identity_settings() != vouched.identity_settings()
    assert plain.service_fingerprint() != vouched.service_fingerprint()
    assert "trusted" not in plain.settings()
    require_check(vouched, 0, "from the archive of 2025")
    require_check(plain, 64, "")
    for far, paid, trust, told in (
        (plain, 0, "", "--paid 64"),
        (plain, 0, "a reason", 'trusted: "a reason"'),
        (vouched, 0, "another reason", 'trusted: "another reason"'),
        (vouched, 5, "", "Remove it"),
    ):
        with pytest.raises(AdoptionError) as refused:
            require_check(far, paid, trust)
        assert told in refused.value.remedy


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("v.jsonl", '{"text": "a", "embedding": [1, 2]}\n{"text": "b", "embedding": [1]}', "row 2 has 1 dimensions"),
        ("v.jsonl", '{"text": "a"}', "line 1 has no `text` or `id`, or no `embedding`"),
        ("v.jsonl", '{"text": "a", "embedding": "no base64"}', "line 1: its vector is not a list of numbers"),
        ("v.jsonl", "[1]", "line 1 is not a JSON object"),
        ("v.jsonl", "", "holds no vectors"),
        ("v.jsonl", '{"custom_id": "r", "response": {"status_code": 200}}', "Give --texts"),
        ("v.npy", "nothing", "cannot be read as npy"),
        ("v.parquet", "nothing", "cannot be read as Parquet"),
        ("v.f32", "1234", "Give --dim"),
    ],
)
def test_a_file_of_another_form_is_named(name: str, content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    texts = None
    if name == "v.npy":
        texts = tmp_path / "t.txt"
        texts.write_text("a\n")
    with pytest.raises(TransferError, match=told):
        open_vectors(tmp_path / name, texts, None, "float32", None, tmp_path)
