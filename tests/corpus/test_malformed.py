"""The catalogue of bad input: a clear refusal before anything runs, or a counted drop with file and line."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import polars as pl
import pyarrow as pa
import pytest

from stella_assets.corpus.errors import SourceError
from stella_assets.corpus.sources import lines
from stella_assets.storage.workspace import Workspace
from tests.corpus.conftest import build, different, dropped_of, rows_of

GOOD = [different(i) for i in range(120)]


def as_lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


GOOD_LINES = as_lines([{"text": text} for text in GOOD])


def jsonl(extra: bytes) -> Callable[[Path], dict[str, Any]]:
    """Good lines with something bad after them."""

    def write(folder: Path) -> dict[str, Any]:
        (folder / "data.jsonl").write_bytes(GOOD_LINES.encode() + extra)
        return {"kind": "jsonl", "path": "./data.jsonl"}

    return write


def csv(content: bytes, **keys: Any) -> Callable[[Path], dict[str, Any]]:
    def write(folder: Path) -> dict[str, Any]:
        lines = "".join(f"{i},{text}\n" for i, text in enumerate(text.replace(",", ";") for text in GOOD))
        (folder / "data.csv").write_bytes(b"id,text\n" + lines.encode() + content)
        return {"kind": "csv", "path": "./data.csv", **keys}

    return write


def text(extra: bytes, unit: str = "line") -> Callable[[Path], dict[str, Any]]:
    def write(folder: Path) -> dict[str, Any]:
        between = "\n" if unit == "line" else "\n\n"
        (folder / "data.txt").write_bytes(between.join(GOOD).encode() + between.encode() + extra)
        return {"kind": "text", "path": "./data.txt", "unit": unit}

    return write


def among_good_files(name: str, content: bytes, kind: str) -> Callable[[Path], dict[str, Any]]:
    """A bad file in a folder of good ones."""

    def write(folder: Path) -> dict[str, Any]:
        (folder / "data").mkdir()
        for number in range(3):
            if kind == "parquet":
                pl.DataFrame({"text": GOOD[number * 40 :][:40]}).write_parquet(folder / "data" / f"{number}.parquet")
            else:
                (folder / "data" / f"{number}.jsonl").write_text(
                    as_lines([{"text": text} for text in GOOD[number * 40 :][:40]])
                )
        (folder / "data" / name).write_bytes(content)
        return {"kind": kind, "path": "./data", "max_malformed": 0.3}

    return write


DROPPED: dict[str, tuple[Callable[[Path], dict[str, Any]], str, str]] = {
    # name: (what is written, the rule, a part of the detail)
    "a line that is not JSON": (jsonl(b"{not json\n"), "malformed", "not JSON"),
    "a line that breaks off": (jsonl(b'{"text": "half'), "malformed", "not JSON"),
    "JSON that is not an object": (jsonl(b'["a", "b"]\n'), "malformed", "an array, not an object"),
    "a row without the column": (jsonl(b'{"body": "x"}\n'), "malformed", "no text under 'text'; the row has body"),
    "a number for a text": (jsonl(b'{"text": 5}\n'), "malformed", "'text' is int, not text"),
    "an object for a text": (jsonl(b'{"text": {"a": "b"}}\n'), "malformed", "'text' is dict, not text"),
    "a list for a text": (jsonl(b'{"text": ["a", "b"]}\n'), "malformed", "'text' is list, not text"),
    "a text of null": (jsonl(b'{"text": null}\n'), "too short", ""),
    "an empty text": (jsonl(b'{"text": ""}\n'), "too short", ""),
    "a text of blanks": (jsonl(b'{"text": " \\n\\t "}\n'), "too short", ""),
    "a line of another encoding": (jsonl(b'{"text": "caf\xe9"}\n'), "malformed", "not utf-8: byte 13 is 0xe9"),
    "JSON nested without end": (jsonl(b"[" * 1900 + b"\n"), "malformed", "not JSON"),
    "half of a surrogate pair": (jsonl(b'{"text": "\\ud83d"}\n'), "too short", ""),
    "a text of control characters": (jsonl(b'{"text": "\\u0000\\u0001\\u0002"}\n'), "too short", ""),
    "a text of symbols": (jsonl(b'{"text": "%s"}\n' % (b"#$ " * 20)), "few letters", ""),
    "a duplicate id with another text": (
        jsonl(as_lines([{"id": 1, "text": GOOD[0]}]).encode()),
        "duplicate",
        "copy of",
    ),
    "a line longer than any text": (jsonl(b'{"text": "' + b"x" * 3000 + b'"}\n'), "malformed", "longer than"),
    "a CSV row with a field too many": (csv(b"7,a text,and more\n"), "malformed", "not the 2 fields"),
    "a CSV row with a field missing": (csv(b"7\n"), "malformed", "not the 2 fields"),
    "a CSV row of another encoding": (csv(b"7,caf\xe9 au lait\n"), "malformed", "not utf-8"),
    "a quote that is never closed": (
        csv(b'7,"a text that\n'),
        "malformed",
        "a quotation mark that is never closed (unexpected end of data)",
    ),
    "a text line of another encoding": (text(b"caf\xe9 au lait\n"), "malformed", "not utf-8: byte 3 is 0xe9"),
    "a text line longer than any text": (text(b"x" * 3000), "malformed", "longer than"),
    "a paragraph longer than any text": (text(b"x y\n" * 1000, "paragraph"), "malformed", "longer than"),
    "a file that is not Parquet": (
        among_good_files("9.parquet", b"PAR1 no", "parquet"),
        "unreadable",
        "cannot be read",
    ),
    "an empty Parquet file": (among_good_files("9.parquet", b"", "parquet"), "unreadable", "cannot be read"),
    "gzip that breaks off": (
        among_good_files("9.jsonl.gz", gzip.compress(GOOD_LINES.encode())[:400], "jsonl"),
        "unreadable",
        "cannot be read: Truncated",
    ),
    "a file that is not gzip": (among_good_files("9.jsonl.gz", b"\xff no", "jsonl"), "unreadable", "cannot be read"),
    "a file that is not zstd": (
        among_good_files("9.jsonl.zst", b"\xff no", "jsonl"),
        "unreadable",
        "cannot be read",
    ),
}


@pytest.mark.parametrize("case", DROPPED)
def test_bad_input_is_counted_with_its_place_and_nothing_else_is_lost(
    case: str, tmp_path: Path, corpus_with, workspace: Workspace, monkeypatch
):
    monkeypatch.setattr(lines, "MAX_BYTES", 2000)
    write, rule, detail = DROPPED[case]
    corpus = corpus_with({"deduplicate": None}, **{"max_malformed": 0.02, **write(tmp_path)})
    corpus.sources[0].check()
    made = build(corpus, workspace)
    bad = dropped_of(made)
    assert {row["rule"] for row in bad} == {rule}
    assert len(bad) == 1
    assert detail in (bad[0]["detail"] or "")
    assert bad[0]["origin"].startswith(("data", "9"))
    kept = {row["text"].replace(";", ",") for row in rows_of(made)}
    assert {text.replace(";", ",") for text in GOOD} <= kept


def test_a_byte_order_mark_blank_lines_and_an_empty_file_are_harmless(
    tmp_path: Path, corpus_with, workspace: Workspace
):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + GOOD_LINES.replace("\n", "\n\n  \n").encode())
    (tmp_path / "data" / "b.jsonl").write_bytes(b"")
    made = build(corpus_with({"deduplicate": None}, kind="jsonl", path="./data"), workspace)
    assert dropped_of(made) == []
    assert {row["text"] for row in rows_of(made)} == set(GOOD)


def test_more_malformed_rows_than_allowed_stop_the_run_and_the_first_is_named(
    tmp_path: Path, corpus_with, workspace: Workspace
):
    (tmp_path / "data.jsonl").write_text(GOOD_LINES + "{broken\n" * 3)
    corpus = corpus_with(kind="jsonl", path="./data.jsonl")
    expected = (
        r"3 of 123 rows are malformed, the recipe allows 1.00%; the first is data.jsonl:121: not JSON.*max_malformed"
    )
    with pytest.raises(SourceError, match=expected):
        build(corpus, workspace)
    build(corpus_with(kind="jsonl", path="./data.jsonl", max_malformed=0.1), workspace)


def test_a_source_that_vanishes_between_runs_is_named(tmp_path: Path, corpus_with, workspace: Workspace):
    (tmp_path / "data.jsonl").write_text(GOOD_LINES)
    corpus = corpus_with(kind="jsonl", path="./data.jsonl")
    build(corpus, workspace)
    (tmp_path / "data.jsonl").unlink()
    with pytest.raises(SourceError, match=r"data.jsonl: source 'mine' matches no file. Correct `path`"):
        build(corpus, workspace)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a folder without such files": ({"kind": "csv", "path": "./data"}, "no file that ends in .csv"),
    "an unknown encoding": ({"kind": "jsonl", "path": "./data", "encoding": "utf-9"}, "no encoding 'utf-9'"),
    "no Lance table": ({"kind": "lance", "path": "./data"}, "no Lance table"),
    "a version that is not there": ({"kind": "lance", "path": "./t.lance", "version": 9}, "not at version 9"),
    "a column that Lance does not have": (
        {"kind": "lance", "path": "./t.lance", "columns": {"text": "body"}},
        "no column 'body'; it has text",
    ),
    "a CSV without the column": ({"kind": "csv", "path": "./a.csv"}, "no text under 'text'; the row has id, body"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unreadable_input_is_refused_before_anything_runs(case: str, tmp_path: Path, corpus_with):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text(GOOD_LINES)
    (tmp_path / "a.csv").write_text("id,body\n1,a\n")
    lance.write_dataset(pa.table({"text": GOOD}), tmp_path / "t.lance")
    keys, message = REFUSED[case]
    with pytest.raises(SourceError, match=message):
        corpus_with(**keys).sources[0].check()


def test_impossible_rules_are_refused_with_the_recipe(tmp_path: Path, raw):
    from stella_assets.recipe import RecipeError, parse_recipe

    for corpus, message in (
        ({"clean": {"query": {"min_chars": 9, "max_chars": 5}}}, "min_chars 9 is above max_chars 5"),
        ({"clean": {"boilerplate": ["(unclosed"]}}, r"clean.boilerplate: '\(unclosed' is not a regular expression"),
        ({"decontaminate": {"sets": [{"name": "x"}]}}, "give either `tasks`"),
        ({"dev": 0.6, "test": 0.6}, "leave no texts to train on"),
    ):
        raw["corpus"] |= {"clean": {}, "decontaminate": None, "dev": 0.1, "test": 0.1, **corpus}
        with pytest.raises(RecipeError, match=message):
            parse_recipe(raw, tmp_path / "tiny.yaml")


def test_the_same_texts_come_from_every_format(tmp_path: Path, corpus_with, workspace: Workspace):
    zstd = pa.OSFile(str(tmp_path / "z.jsonl.zst"), "wb")
    with zstd, pa.CompressedOutputStream(zstd, "zstd") as out:
        out.write(GOOD_LINES.encode())
    (tmp_path / "g.jsonl.gz").write_bytes(gzip.compress(GOOD_LINES.encode()))
    nested = as_lines([{"data": {"text": text, "kind": "query"}, "lic": "MIT"} for text in GOOD])
    pl.DataFrame({"text": GOOD}).write_csv(tmp_path / "c.csv", separator=";")
    pl.DataFrame({"a": GOOD, "text": GOOD}).write_parquet(tmp_path / "p.parquet")
    lance.write_dataset(pa.table({"text": GOOD}), tmp_path / "t.lance")
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    for number, text in enumerate(GOOD):
        (tmp_path / "tree" / ("deep" if number % 2 else ".") / f"{number}.md").write_text(text)
    columns = {"text": "data.text", "role": "data.kind", "licence": "lic"}
    for source in (
        {"kind": "jsonl", "path": "./z.jsonl.zst"},
        {"kind": "jsonl", "path": "./g.jsonl.gz"},
        {"kind": "csv", "path": "./c.csv", "delimiter": ";"},
        {"kind": "parquet", "path": "./p.parquet"},
        {"kind": "lance", "path": "./t.lance"},
        {"kind": "text", "path": "./tree", "unit": "file"},
    ):
        rows = rows_of(build(corpus_with({"deduplicate": None}, **source), workspace))
        assert {row["text"] for row in rows} == set(GOOD), source
    (tmp_path / "n.jsonl").write_text(nested, encoding="latin-1")
    corpus = corpus_with({"deduplicate": None}, kind="jsonl", path="./n.jsonl", columns=columns, encoding="latin-1")
    rows = rows_of(build(corpus, workspace))
    assert {(row["role"], row["licence"]) for row in rows} == {("query", "MIT")}
