"""Sources of files: what is read, and how a file that cannot be read is refused."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stella_assets.corpus.errors import SourceError
from tests.corpus.conftest import different
from tests.corpus.sources.conftest import texts_of


def test_own_texts_come_from_parquet_json_lines_and_text_files(tmp_path: Path, corpus_with):
    texts = [different(i) for i in range(3)]
    pq.write_table(pa.table({"body": [*texts, None]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"body": text}) + "\n\n" for text in texts))
    (tmp_path / "c.txt").write_text("\n\n".join(texts))
    for kind, path in (("parquet", "a.parquet"), ("jsonl", "b.jsonl")):
        corpus = corpus_with(kind=kind, path=f"./{path}", columns={"text": "body"})
        found = texts_of(corpus.sources[0])
        assert [item.text for item in found if item.text] == texts
        assert {item.licence for item in found} == {"CC0-1.0"}
    corpus = corpus_with(kind="text", path="./*.txt", role="query")
    assert [(item.text.strip(), item.role, item.section) for item in texts_of(corpus.sources[0])] == [
        (text, "query", "c") for text in texts
    ]


REFUSALS = {
    "missing file": ({"kind": "text", "path": "./absent.txt"}, ["absent.txt", "matches no file", "Correct `path`"]),
    "not UTF-8": ({"kind": "text", "path": "./latin.txt"}, ["latin.txt:1", "not utf-8: byte 3 is 0xe9", "`encoding`"]),
    "unknown column": (
        {"kind": "parquet", "path": "./a.parquet", "columns": {"text": "txt"}},
        ["a.parquet:1", "no column 'txt'", "it has text, label", "`columns`, `kind` or `path`"],
    ),
    "unknown key in JSON": (
        {"kind": "jsonl", "path": "./b.jsonl", "columns": {"text": "content"}},
        ["b.jsonl:1", "no text under 'content'", "the row has body"],
    ),
    "not Parquet": ({"kind": "parquet", "path": "./latin.txt"}, ["latin.txt", "cannot be read", "not a parquet file"]),
    "broken JSON": ({"kind": "jsonl", "path": "./c.jsonl"}, ["c.jsonl:1", "not JSON"]),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_file_that_cannot_be_read_is_refused_before_anything_runs(case: str, tmp_path: Path, corpus_with):
    (tmp_path / "latin.txt").write_bytes("café au lait".encode("latin1"))
    (tmp_path / "b.jsonl").write_text('{"body": "text"}\n')
    (tmp_path / "c.jsonl").write_text("{not json\n")
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "a.parquet")
    source, expected = REFUSALS[case]
    with pytest.raises(SourceError) as caught:
        corpus_with(**source).sources[0].check()
    for part in expected:
        assert part in str(caught.value)
    assert caught.value.message
    assert caught.value.remedy.endswith(".")


@pytest.mark.parametrize("place", [b"caf\xe9.%s", b"caf\xe9/a.%s"], ids=["file", "folder"])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_name_that_is_not_utf8_is_refused(kind: str, place: bytes, tmp_path: Path, corpus_with):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/data/" + place % kind.encode()))
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(SourceError, match=r"caf\ufffd.*: source 'mine': the name is not UTF-8\. Rename it\."):
        corpus_with(kind=kind, path=f"./data/**/*.{kind}").sources[0].preview()


def test_a_changed_file_changes_the_digest_of_its_source(tmp_path: Path, corpus_with):
    (tmp_path / "lines.txt").write_text("one")
    (source,) = corpus_with(kind="text", path="./lines.txt").sources
    before = source.content_digest()
    (tmp_path / "lines.txt").write_text("two")
    assert source.content_digest() != before
