"""Sources: what is read, and how a file that cannot be read is refused."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stella_assets.corpus.python_docs import UnknownPackageError, docstring_texts
from stella_assets.corpus.sources import SourceError, check_source, read_source, source_digests, source_parts
from stella_assets.corpus.text import Malformed, RawText
from stella_assets.recipe import Source
from tests.corpus.conftest import different


def texts_of(source: Source) -> list[RawText | Malformed]:
    return [text for part in source_parts(source) for text in read_source(source, part)]


def test_own_texts_come_from_parquet_json_lines_and_text_files(tmp_path: Path, recipe_with):
    texts = [different(i) for i in range(3)]
    pq.write_table(pa.table({"body": [*texts, None]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"body": text}) + "\n\n" for text in texts))
    (tmp_path / "c.txt").write_text("\n\n".join(texts))
    for kind, path in (("parquet", "a.parquet"), ("jsonl", "b.jsonl")):
        recipe = recipe_with(kind=kind, path=f"./{path}", columns={"text": "body"})
        found = texts_of(recipe.corpus.sources[0])
        assert [item.text for item in found if item.text] == texts
        assert {item.licence for item in found} == {"CC0-1.0"}
    recipe = recipe_with(kind="text", path="./*.txt", role="query")
    assert [(item.text.strip(), item.role, item.section) for item in texts_of(recipe.corpus.sources[0])] == [
        (text, "query", "c") for text in texts
    ]


REFUSALS = {
    "missing file": ({"kind": "text", "path": "./absent.txt"}, ["absent.txt", "matches no file", "Correct `path`"]),
    "not UTF-8": ({"kind": "text", "path": "./latin.txt"}, ["latin.txt:1", "not utf-8: byte 3 is 0xe9", "`encoding`"]),
    "unknown column": (
        {"kind": "parquet", "path": "./a.parquet", "columns": {"text": "txt"}},
        ["a.parquet", "no column 'txt'", "it has text, label", "Set `columns`"],
    ),
    "unknown key in JSON": (
        {"kind": "jsonl", "path": "./b.jsonl", "columns": {"text": "content"}},
        ["b.jsonl:1", "no text under 'content'", "the row has body"],
    ),
    "not Parquet": ({"kind": "parquet", "path": "./latin.txt"}, ["latin.txt", "not a Parquet file"]),
    "broken JSON": ({"kind": "jsonl", "path": "./c.jsonl"}, ["c.jsonl:1", "not JSON"]),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_file_that_cannot_be_read_is_refused_before_anything_runs(case: str, tmp_path: Path, recipe_with):
    (tmp_path / "latin.txt").write_bytes("café au lait".encode("latin1"))
    (tmp_path / "b.jsonl").write_text('{"body": "text"}\n')
    (tmp_path / "c.jsonl").write_text("{not json\n")
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "a.parquet")
    source, expected = REFUSALS[case]
    recipe = recipe_with(**source)
    with pytest.raises(SourceError) as caught:
        check_source(recipe.corpus.sources[0])
    for part in expected:
        assert part in str(caught.value)


def test_a_package_that_is_not_installed_is_named(tmp_path: Path, recipe_with):
    recipe = recipe_with(kind="python_docs", packages=["no-such-package"])
    with pytest.raises(UnknownPackageError, match="'no-such-package' is not installed"):
        check_source(recipe.corpus.sources[0])


def test_a_hub_data_set_is_streamed_up_to_its_limit_and_its_column_is_checked(tmp_path: Path, recipe_with):
    pq.write_table(pa.table({"body": [different(i) for i in range(20)]}), tmp_path / "train.parquet")
    hub = {"kind": "huggingface", "dataset": str(tmp_path), "revision": "0" * 40, "limit": 7}
    recipe = recipe_with(**hub, columns={"text": "body"})
    assert [item.text for item in texts_of(recipe.corpus.sources[0])] == [different(i) for i in range(7)]
    recipe = recipe_with(**hub, columns={"text": "txt"})
    with pytest.raises(SourceError, match="no column 'txt'; it has body"):
        texts_of(recipe.corpus.sources[0])


def test_a_moving_revision_that_the_hub_cannot_resolve_asks_for_a_commit(recipe_with, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    recipe = recipe_with(kind="huggingface", dataset="org/texts", revision="main", limit=7)
    with pytest.raises(SourceError, match=r"which commit revision 'main' is .* 40 hexadecimal digits"):
        source_digests(recipe.corpus)


def test_docstrings_are_prose_without_parameter_tables_or_examples():
    texts = list(docstring_texts(["networkx"], queries=True))
    documents = {item.origin: item for item in texts if item.role == "document"}
    path = documents["networkx.algorithms.shortest_paths.generic.shortest_path"]
    assert path.text == "Compute shortest paths in the graph."
    assert path.licence == "BSD-3-Clause"
    assert not any(">>>" in item.text or "\nParameters\n" in item.text for item in texts)
    queries = [item for item in texts if item.role == "query"]
    assert all(" ".join(item.parent.split()).startswith(item.text) for item in queries)


def test_a_changed_file_changes_the_digest_of_its_source(tmp_path: Path, recipe_with):
    (tmp_path / "lines.txt").write_text("one")
    recipe = recipe_with(kind="text", path="./lines.txt")
    before = source_digests(recipe.corpus)
    (tmp_path / "lines.txt").write_text("two")
    assert source_digests(recipe.corpus) != before
