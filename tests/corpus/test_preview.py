"""What is seen of a source before a run: its first rows, with the reader of the run, or why it cannot be used."""

import gzip
import io
import json
import logging
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stella_assets.corpus.errors import SourceError
from stella_assets.storage.workspace import Workspace
from tests.corpus.conftest import build, different, settings_of
from tests.corpus.messy import GOOD, TEN, jsonl, parquet, table

NESTED = "".join(json.dumps({"meta": {"text": each}, "text": each}) + "\n" for each in TEN).encode()


def file(name: str, content: bytes, kind: str, **keys: Any) -> tuple[Callable[[Path], Any], dict[str, Any]]:
    return lambda folder: (folder / name).write_bytes(content), {"kind": kind, "path": f"./{name}", **keys}


def tar_of(name: str, content: bytes) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return sink.getvalue()


def table_of_lance(table: dict[str, Any], columns: dict[str, str]) -> tuple[Callable[[Path], Any], dict[str, Any]]:
    source = {"kind": "lance", "path": "./t.lance", "columns": columns}
    return lambda folder: lance.write_dataset(pa.table(table), folder / "t.lance"), source


def link(target: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "data").mkdir()
        (folder / "data" / "a.jsonl").write_bytes(GOOD)
        (folder / "data" / "b.jsonl").symlink_to(target)

    return make


REFUSED: dict[str, tuple[tuple[Callable[[Path], Any], dict[str, Any]], str]] = {
    "a nested path with a typo": (
        file("a.jsonl", NESTED, "jsonl", columns={"text": "meta.txt"}),
        r"a.jsonl:1: no text under 'meta.txt'; 'meta' has text\. .*`columns`",
    ),
    "a nested path with a typo in Parquet": (
        file("a.parquet", parquet({"doc": [{"body": each} for each in TEN]}), "parquet", columns={"text": "doc.bdy"}),
        r"a.parquet:1: no text under 'doc.bdy'; 'doc' has body\.",
    ),
    "a second column with a typo": (
        file("a.jsonl", NESTED, "jsonl", columns={"text": ["text", "titel"]}),
        r"none of the first 10 rows has 'titel'\. Correct `columns`",
    ),
    "a licence that no row has": (
        file("a.jsonl", NESTED, "jsonl", columns={"text": "text", "licence": "meta.licence"}),
        r"none of the first 10 rows has 'meta.licence'",
    ),
    "a list of texts": (
        file("a.jsonl", b'{"pos": ["one", "two"]}\n', "jsonl", columns={"text": "pos"}),
        r"a.jsonl:1: 'pos' is list, not text; `pos\[\]` takes each text of it\.",
    ),
    "a list of texts in Parquet": (
        file("a.parquet", parquet({"pos": [["one", "two"]]}), "parquet", columns={"text": "pos"}),
        r"a.parquet:1: 'pos' is list, not text; `pos\[\]` takes each text of it\.",
    ),
    "no list where each element is asked for": (
        file("a.jsonl", NESTED, "jsonl", columns={"text": "text[]"}),
        r"a.jsonl:1: 'text' is str, not a list\.",
    ),
    "a list of lists": (
        file("a.jsonl", b'{"pos": [["one"], ["two"]]}\n', "jsonl", columns={"text": "pos[]"}),
        r"a.jsonl:1: 'pos\[\]' is list, not text\. ",
    ),
    "two columns of a name": (
        file("a.csv", b"text,text\n1,2\n", "csv"),
        r"a.csv: cannot be read: two columns are named 'text'; rename one of them\.",
    ),
    "two columns of a name in Parquet": (
        file("a.parquet", parquet(pa.table([TEN, TEN], names=["text", "text"])), "parquet"),
        r"two columns are named 'text'",
    ),
    "more malformed rows than a run allows": (
        file("a.jsonl", GOOD * 5 + b"{\n" * 3, "jsonl", max_malformed=0.05),
        r"3 of the first 53 rows are malformed, the recipe allows 5.00%; the first is a.jsonl:51: not JSON \(.*\)\. "
        r"Correct the data or `columns`, `encoding`, `kind` or `path`, or raise `max_malformed`\.",
    ),
    "mostly malformed rows, and more behind them": (
        file("a.jsonl", b"{\n" * 98 + GOOD * 9, "jsonl"),
        "98 of the first 100 rows are malformed, the recipe allows 1.00%",
    ),
    "an archive that breaks off in its first rows": (
        file("a.txt", gzip.compress("\n".join(different(i) for i in range(90)).encode())[:-4], "text", unit="line"),
        r"a.txt: cannot be read: Truncated compressed stream\.",
    ),
    "a header alone": (
        file("a.csv", b"id,text\n", "csv"),
        r"a.csv: source 'mine' has no rows\. Correct it, or remove it\.",
    ),
    "an empty file": (file("a.txt", b"", "text"), r"has no rows\. "),
    "a nested path with a typo in Lance": (
        table_of_lance({"doc": [{"body": each} for each in TEN]}, {"text": "doc.bdy"}),
        r"10 of the first 10 rows are malformed, .* t:1: no text under 'doc.bdy'; 'doc' has body\.",
    ),
    "a licence that no row has in Lance": (
        table_of_lance({"text": TEN, "doc": [{"lic": "MIT"}] * 10}, {"text": "text", "licence": "doc.licence"}),
        r"none of the first 10 rows has 'doc.licence'",
    ),
    "nulls in Lance": (
        table_of_lance({"text": pa.array([None] * 10, pa.string())}, {}),
        r"t.lance: source 'mine': the first 10 rows are all empty",
    ),
    "no packages": ((lambda folder: None, {"kind": "python_docs", "packages": []}), r"source 'mine' has no rows\."),
    "rows without any text": (
        file("a.jsonl", b'{"text": null}\n{"text": " "}\n', "jsonl"),
        r"the first 2 rows are all empty",
    ),
    "JSON arrays of arrays": (file("a.json", b'[[1, "a"], [2, "b"]]', "jsonl"), r"a.json:1: an array, not an object\."),
    "a workbook of Excel": (
        file("a.csv", b"PK\x03\x04\x14\x00", "csv"),
        r"a.csv: cannot be read: a ZIP archive or an Office document",
    ),
    "a workbook of an old Excel": (
        file("a.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512), "csv"),
        r"a.csv: cannot be read: an old Office document; save it as text\.",
    ),
    "a packed tar archive": (
        file("a.txt.gz", tar_of("a.txt", GOOD), "text"),
        r"a.txt.gz: cannot be read: a tar archive; unpack it\.",
    ),
    "a table of Arrow": (
        file("a.jsonl", b"ARROW1\x00\x00\xff\xff\xff\xff", "jsonl"),
        r"cannot be read: an Arrow or Feather file; write it as Parquet\.",
    ),
    "Chinese in UTF-16 without a line end or blank": (
        file("a.txt", ("第句话是个普通的文本没有别的意思" * 3).encode("utf-16-le"), "text"),
        r"a.txt:1: not utf-8: .*`encoding`",
    ),
    "Parquet under another name": (file("a.csv", parquet({"text": TEN}), "csv"), "cannot be read: a Parquet file"),
    "Windows' encoding": (
        file("a.csv", table(["caf\xe9"] * 3).encode("cp1252"), "csv"),
        r"a.csv:2: not utf-8: 0xe9\. .*`encoding`",
    ),
    "a codec that is not an encoding": (file("a.jsonl", GOOD, "jsonl", encoding="hex"), "there is no encoding 'hex'"),
    "a link to nothing": ((link("gone.jsonl"), {"kind": "jsonl", "path": "./data"}), r"b.jsonl: .* a link to nothing"),
    "a link to itself": ((link("b.jsonl"), {"kind": "jsonl", "path": "./data/*"}), r"b.jsonl: .* a link to nothing"),
    "hidden files only": (
        (lambda folder: (folder / ".a.jsonl").write_bytes(GOOD), {"kind": "jsonl", "path": "./"}),
        "the folder has no file that ends in .jsonl",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_source_that_cannot_be_used_is_refused_with_the_reason(case: str, tmp_path: Path, corpus_with):
    (write, source), message = REFUSED[case]
    write(tmp_path)
    with pytest.raises(SourceError, match=message) as caught:
        corpus_with(**source).sources[0].preview()
    assert caught.value.remedy.endswith(".")


@pytest.mark.parametrize(
    "columns",
    [
        {"text": ["a[]", "b[]"]},
        {"text": "a[].b[]"},
        {"query": "q", "positive": "a[][]"},
        {"query": "q", "positive": "p", "negatives": "a[].b[]"},
    ],
)
def test_only_one_list_can_be_taken_apart(columns: dict[str, Any], corpus_with):
    with pytest.raises(ValueError, match="more than one"):
        corpus_with(kind="jsonl", path="a", columns=columns)


@pytest.mark.parametrize("key", ["query", "score", "section", "licence"])
def test_what_a_row_has_once_is_no_list(key: str, corpus_with):
    with pytest.raises(ValueError, match="a row has one of it"):
        corpus_with(kind="jsonl", path="a", columns={"query": "q", "positive": "p", key: "a[]"})


def test_the_first_rows_are_read_by_the_reader_of_the_run_and_one_is_shown(tmp_path: Path, corpus_with):
    (tmp_path / "a.jsonl").write_text("{broken\n" + jsonl([different(i) for i in range(300)]))
    preview = corpus_with(kind="jsonl", path="./a.jsonl").sources[0].preview()
    assert (preview.rows, preview.malformed, preview.example) == (100, 1, different(0))
    assert preview.remarks == (
        "1 of them malformed, e.g. a.jsonl:1: not JSON (Expecting property name enclosed in double quotes)",
    )
    lance.write_dataset(pa.table({"text": TEN}), tmp_path / "t.lance")
    preview = corpus_with(kind="lance", path="./t.lance").sources[0].preview()
    assert (preview.rows, preview.example) == (10, TEN[0])
    hub = corpus_with(kind="huggingface", dataset="org/texts", revision="main", limit=7).sources[0].preview()
    assert (hub.rows, hub.remarks) == (0, ("not looked at, since it is on the hub",))


def test_more_malformed_rows_than_a_run_allows_are_said_where_more_rows_follow(tmp_path: Path, corpus_with):
    (tmp_path / "a.jsonl").write_text("{\n" * 3 + jsonl([different(i) for i in range(300)]))
    (remark,) = corpus_with(kind="jsonl", path="./a.jsonl").sources[0].preview().remarks
    assert remark.startswith("3 of them malformed, e.g. a.jsonl:1: not JSON")
    assert remark.endswith("; a run stops if more than 1.00% of all rows are")


def test_files_of_another_schema_are_tolerated_as_bad_files_are(tmp_path: Path, corpus_with):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.parquet").write_bytes(parquet({"text": TEN, "lic": ["MIT"] * 10}))
    (tmp_path / "data" / "b.parquet").write_bytes(parquet({"body": TEN}))
    (tmp_path / "data" / "c.parquet").write_bytes(parquet({"text": TEN}))
    source = {"kind": "parquet", "path": "./data", "columns": {"text": "text", "licence": "lic"}}
    with pytest.raises(SourceError, match=r"b.parquet:1: no column 'text'; it has body\."):
        corpus_with(**source).sources[0].preview()
    preview = corpus_with(**source, max_malformed=0.4).sources[0].preview()
    assert (preview.rows, preview.malformed) == (30, 10)


def test_a_source_whose_rows_shrink_against_its_lines_says_so_before_a_run_and_in_it(
    tmp_path: Path, corpus_with, workspace: Workspace, caplog: pytest.LogCaptureFixture
):
    texts = [f'"{different(i).replace(",", "")}\nIts second line\nand a third"' for i in range(60)]
    (tmp_path / "a.csv").write_text(table(texts))
    corpus = corpus_with(kind="csv", path="./a.csv")
    said = "source 'mine': 180 lines are 60 rows, since fields in quotation marks go over several lines"
    assert said in corpus.sources[0].preview().remarks[0]
    with caplog.at_level(logging.INFO):
        build(corpus, workspace)
    assert said in caplog.text


def test_the_label_0_is_a_section(tmp_path: Path, corpus_with):
    (tmp_path / "a.jsonl").write_text(jsonl(TEN, label=0))
    (source,) = corpus_with(kind="jsonl", path="./a.jsonl", columns={"text": "text", "section": "label"}).sources
    assert {row.section for part in source.parts() for row in source.read(part)} == {"0"}


def test_many_links_to_a_folder_itself_take_no_time(tmp_path: Path, corpus_with):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_bytes(GOOD)
    for number in range(20):
        (tmp_path / "data" / f"link{number}").symlink_to(tmp_path / "data")
    for path in ("./data", "./data/**/*.jsonl", "./**/*.jsonl"):
        assert [each.name for each in corpus_with(kind="jsonl", path=path).sources[0].files()] == ["a.jsonl"]


def test_a_recipe_in_a_folder_with_brackets_finds_its_files(tmp_path: Path, raw: dict[str, Any]):
    folder = tmp_path / "project [1]*"
    (folder / "data[x]").mkdir(parents=True)
    (folder / "data[x]" / "a.jsonl").write_bytes(GOOD)
    for path in ("./data[x]/a.jsonl", "./data[x]", "./*/*.jsonl", "**/*.jsonl", str(folder / "data[x]" / "a.jsonl")):
        raw["corpus"]["sources"] = [{"name": "m", "licence": "MIT", "kind": "jsonl", "path": path}]
        (source,) = settings_of(raw["corpus"], folder).sources
        assert [each.name for each in source.files()] == ["a.jsonl"], path


def test_a_large_row_group_is_not_read_as_a_whole(tmp_path: Path):
    texts = [random.Random(number).randbytes(500).hex() for number in range(80_000)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", compression="none", use_dictionary=False)
    code = (
        "import re, sys, pyarrow.parquet; from pathlib import Path;"
        " from stella_assets.corpus.settings import CorpusSettings;"
        "source = {'kind': 'parquet', 'name': 'a', 'licence': 'b', 'path': sys.argv[1]};"
        "(source,) = CorpusSettings.model_validate({'sources': [source]}).sources;"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]);"
        "before = peak(); assert source.preview().rows == 100; print(peak() - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 70 * 1024, "KiB; the row group has 80 MB, and a batch of it 8"
