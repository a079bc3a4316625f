"""Sources: what is read, and how a file that cannot be read is refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stella_assets.corpus.build import EmptyCorpusError, build_corpus, read_texts
from stella_assets.corpus.python_docs import UnknownPackageError, docstring_texts
from stella_assets.corpus.sources import SourceError, check_source, read_source, source_digests
from stella_assets.recipe import Recipe, read_recipe
from stella_assets.step import Artefact, Workbench
from tests.conftest import write_recipe

LONG = "This is sentence number {} of the text, and it is long enough to be kept by every rule. It has a second part."


def recipe_with(tmp_path: Path, raw: dict[str, Any], **source: Any) -> Recipe:
    raw["corpus"]["sources"] = [{"name": "mine", "licence": "CC0-1.0", **source}]
    return read_recipe(write_recipe(tmp_path, raw))


def bench(tmp_path: Path, home, log) -> Workbench:
    folder = tmp_path / "draft"
    folder.mkdir(exist_ok=True)
    return Workbench("tiny", "key", folder, folder, {}, home, log)


def test_own_texts_come_from_parquet_json_lines_and_text_files(tmp_path: Path, raw):
    texts = [LONG.format(i) for i in range(3)]
    pq.write_table(pa.table({"body": [*texts, None]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"body": text}) + "\n\n" for text in texts))
    (tmp_path / "c.txt").write_text("\n\n".join(texts))
    for kind, path in (("parquet", "a.parquet"), ("jsonl", "b.jsonl")):
        recipe = recipe_with(tmp_path, raw, kind=kind, path=f"./{path}", text_column="body")
        found = list(read_source(recipe.corpus.sources[0]))
        assert [item.text for item in found] == texts
        assert {item.licence for item in found} == {"CC0-1.0"}
    recipe = recipe_with(tmp_path, raw, kind="text", path="./*.txt", role="query")
    assert [(item.text, item.role, item.section) for item in read_source(recipe.corpus.sources[0])] == [
        (text, "query", "c") for text in texts
    ]


REFUSALS = {
    "missing file": ({"kind": "text", "path": "./absent.txt"}, ["absent.txt", "matches no file", "Correct `path`"]),
    "not UTF-8": ({"kind": "text", "path": "./latin.txt"}, ["latin.txt", "byte 3 is 0xe9", "iconv"]),
    "unknown column": (
        {"kind": "parquet", "path": "./a.parquet", "text_column": "txt"},
        ["a.parquet", "no column 'txt'", "it has text, label", "Set `text_column`"],
    ),
    "unknown key in JSON": (
        {"kind": "jsonl", "path": "./b.jsonl", "text_column": "content"},
        ["b.jsonl:1", "no text under 'content'", "the line has body"],
    ),
    "not Parquet": ({"kind": "parquet", "path": "./latin.txt"}, ["latin.txt", "not a Parquet file"]),
    "broken JSON": ({"kind": "jsonl", "path": "./c.jsonl"}, ["c.jsonl:1", "not JSON"]),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_file_that_cannot_be_read_is_refused_before_anything_runs(case: str, tmp_path: Path, raw):
    (tmp_path / "latin.txt").write_bytes("café au lait".encode("latin1"))
    (tmp_path / "b.jsonl").write_text('{"body": "text"}\n')
    (tmp_path / "c.jsonl").write_text("{not json\n")
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "a.parquet")
    source, expected = REFUSALS[case]
    recipe = recipe_with(tmp_path, raw, **source)
    with pytest.raises(SourceError) as caught:
        check_source(recipe.corpus.sources[0])
    for part in expected:
        assert part in str(caught.value)


def test_a_package_that_is_not_installed_is_named(tmp_path: Path, raw):
    recipe = recipe_with(tmp_path, raw, kind="python_docs", packages=["no-such-package"])
    with pytest.raises(UnknownPackageError, match="'no-such-package' is not installed"):
        check_source(recipe.corpus.sources[0])


def test_a_hub_data_set_is_streamed_up_to_its_limit_and_its_column_is_checked(tmp_path: Path, raw):
    pq.write_table(pa.table({"body": [LONG.format(i) for i in range(20)]}), tmp_path / "train.parquet")
    hub = {"kind": "huggingface", "dataset": str(tmp_path), "revision": "0" * 40, "limit": 7}
    recipe = recipe_with(tmp_path, raw, **hub, text_column="body")
    assert [item.text for item in read_source(recipe.corpus.sources[0])] == [LONG.format(i) for i in range(7)]
    recipe = recipe_with(tmp_path, raw, **hub, text_column="txt")
    with pytest.raises(SourceError, match="no column 'txt'; it has body"):
        list(read_source(recipe.corpus.sources[0]))


def test_a_moving_revision_that_the_hub_cannot_resolve_asks_for_a_commit(tmp_path: Path, raw, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    recipe = recipe_with(tmp_path, raw, kind="huggingface", dataset="org/texts", revision="main", limit=7)
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


def test_the_corpus_counts_what_every_rule_dropped_and_keeps_each_text_once(tmp_path: Path, raw, home, log):
    lines = [*(LONG.format(i) for i in range(40)), LONG.format(3), "short", "x" * 700]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    raw["corpus"] |= {"dev": 0.2, "test": 0.2}
    recipe = recipe_with(tmp_path, raw, kind="text", path="./lines.txt", unit="line", limit=30)
    workbench = bench(tmp_path, home, log)
    result = build_corpus(recipe.corpus, workbench)
    funnel = {row["rule"]: row["texts"] for row in pq.read_table(workbench.folder / "funnel.parquet").to_pylist()}
    assert funnel == {"read": 43, "too short": 1, "too long": 1, "duplicate": 1, "over the limit": 10, "kept": 30}
    rows = pq.read_table(workbench.folder / "corpus.parquet").to_pylist()
    assert len({row["id"] for row in rows}) == 30 == result.facts["texts"]
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    assert all(check.passed for check in result.checks)


def test_a_query_and_the_document_it_was_taken_from_are_on_one_side(tiny: Recipe, tmp_path: Path, home, log):
    workbench = bench(tmp_path, home, log)
    build_corpus(tiny.corpus, workbench)
    rows = pq.read_table(workbench.folder / "corpus.parquet").to_pylist()
    documents = {row["origin"]: row for row in rows if row["role"] == "document"}
    pairs = [
        (row["split"], documents[row["origin"]]["split"])
        for row in rows
        if row["role"] == "query"
        and row["origin"] in documents
        and " ".join(documents[row["origin"]]["text"].split()).startswith(row["text"])
    ]
    assert len(pairs) > 10
    assert all(query == document for query, document in pairs)


def test_a_corpus_of_nothing_says_which_rule_took_it(tmp_path: Path, raw, home, log):
    (tmp_path / "lines.txt").write_text("short\ntiny\n")
    recipe = recipe_with(tmp_path, raw, kind="text", path="./lines.txt", unit="line")
    with pytest.raises(EmptyCorpusError, match=r"mine: read 2; mine: too short 2.*min_chars 30"):
        build_corpus(recipe.corpus, bench(tmp_path, home, log))


def test_a_limit_keeps_earlier_choices_as_a_source_grows(tmp_path: Path, raw, home, log):
    kept = []
    for count in (200, 220):
        (tmp_path / "lines.txt").write_text("\n".join(LONG.format(i) for i in range(count)))
        recipe = recipe_with(tmp_path, raw, kind="text", path="./lines.txt", unit="line", limit=100)
        workbench = bench(tmp_path, home, log)
        build_corpus(recipe.corpus, workbench)
        kept.append({row["id"] for row in pq.read_table(workbench.folder / "corpus.parquet").to_pylist()})
    assert len(kept[0] & kept[1]) >= 80


def test_a_changed_file_changes_the_digest_of_its_source(tmp_path: Path, raw):
    (tmp_path / "lines.txt").write_text("one")
    recipe = recipe_with(tmp_path, raw, kind="text", path="./lines.txt")
    before = source_digests(recipe.corpus)
    (tmp_path / "lines.txt").write_text("two")
    assert source_digests(recipe.corpus) != before


def test_columns_are_read_from_the_artefact(tmp_path: Path, tiny: Recipe, home, log):
    workbench = bench(tmp_path, home, log)
    build_corpus(tiny.corpus, workbench)
    artefact = Artefact("corpus", workbench.folder, None)  # type: ignore[arg-type]
    assert read_texts(artefact, ["id", "role"]).column_names == ["id", "role"]
