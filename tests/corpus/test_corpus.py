"""The corpus from end to end: which texts are kept, why others are not, and that only content decides."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal

import polars as pl
import pytest

from stella_assets.corpus import source_reader
from stella_assets.corpus.dropped import compact
from stella_assets.corpus.errors import EmptyCorpusError
from stella_assets.corpus.read import CorpusTexts
from stella_assets.corpus.sentences import sentences
from stella_assets.corpus.settings import CorpusSettings
from stella_assets.corpus.sources import SOURCES, FileSource, RawText, Rows, SourceConfig, SourcePart
from stella_assets.storage.workspace import Workspace
from tests.conftest import write_recipe
from tests.corpus.conftest import build, different, dropped_of, funnel_of, rows_of, settings_of

ROOT = Path(__file__).parents[2]


def write_lines(path: Path, texts: list[str]) -> None:
    path.write_text("\n".join(texts), encoding="utf-8")


def test_the_corpus_counts_what_every_rule_dropped_and_keeps_each_text_once(
    tmp_path: Path, corpus_with, workspace: Workspace
):
    texts = [f"Überall: {different(i)}" for i in range(40)]
    write_lines(tmp_path / "lines.txt", [*texts, texts[3], texts[4].upper() + "!", "short", "x" * 700])
    corpus = corpus_with({"dev": 0.2, "test": 0.2}, kind="text", path="./lines.txt", unit="line", limit=30)
    made = build(corpus, workspace)
    assert funnel_of(made) == {
        "read": 44,
        "too short": 1,
        "too long": 1,
        "duplicate": 2,
        "over the limit": 10,
        "kept": 30,
    }
    rows = rows_of(made)
    metrics = made["corpus"].manifest.metrics
    assert len({row["id"] for row in rows}) == 30 == metrics["texts"]
    for unit, lengths in (
        ("chars", [len(row["text"]) for row in rows]),
        ("bytes", [len(row["text"].encode()) for row in rows]),
    ):
        assert metrics[f"mean_{unit}"] == round(sum(lengths) / 30, 1)
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    assert all(check.passed for check in made["corpus"].manifest.checks)
    dropped = dropped_of(made)
    assert len(dropped) == 14
    copies = [row for row in dropped if row["rule"] == "duplicate"]
    assert {row["detail"].removeprefix("copy of ") for row in copies} <= {
        row["id"][:16] for row in [*rows, *dropped] if row["rule" if "rule" in row else "id"] != "duplicate"
    }
    texts = CorpusTexts(made["corpus"].folder)
    assert texts.table(["id", "role"]).column_names == ["id", "role"]


def test_of_near_copies_that_of_the_earlier_source_is_kept(tmp_path: Path, raw, workspace: Workspace):
    words = [f"word{i}" for i in range(60)]
    original = " ".join(words)
    changed = " ".join([*words[:-1], "another"])
    write_lines(tmp_path / "a.txt", [changed, different(1)])
    write_lines(tmp_path / "b.txt", [original, different(2)])
    for first, kept in (("a", changed), ("b", original)):
        raw["corpus"]["sources"] = [
            {"name": name, "licence": "CC0-1.0", "kind": "text", "path": f"./{name}.txt", "unit": "line"}
            for name in sorted("ab", key=lambda name: name != first)
        ]
        made = build(settings_of(raw["corpus"], tmp_path), workspace)
        assert kept in {row["text"] for row in rows_of(made)}
        (copy,) = [row for row in dropped_of(made) if row["rule"] == "near duplicate"]
        assert copy["source"] != first
        assert copy["value"] == pytest.approx(55 / 57)  # 56 shingles each, one differs


def test_a_query_and_its_document_are_in_the_same_split(tmp_path: Path, raw, workspace: Workspace):
    rows = rows_of(build(settings_of(raw["corpus"], tmp_path), workspace))
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


def test_a_chain_of_near_copies_is_in_one_split(tmp_path: Path, workspace: Workspace, corpus_with):
    texts = []
    for chain in range(30):
        words = [f"chain{chain}word{i}" for i in range(100)]
        middle = [*words[:-8], *(f"m{chain}x{i}" for i in range(8))]
        last = [*(f"l{chain}x{i}" for i in range(8)), *middle[8:]]
        texts += [" ".join(part) for part in (words, middle, last)]
    write_lines(tmp_path / "lines.txt", texts)
    corpus = corpus_with({"dev": 0.2, "test": 0.3, "clean": {}}, kind="text", path="./lines.txt", unit="line")
    splits: dict[str, set[str]] = {}
    kept: dict[str, int] = {}
    for row in rows_of(build(corpus, workspace)):
        chain = next(word for word in row["text"].split() if word.startswith("chain")).split("word")[0]
        splits.setdefault(chain, set()).add(row["split"])
        kept[chain] = kept.get(chain, 0) + 1
    assert max(kept.values()) == 2  # the ends of a chain are not copies of each other
    assert all(len(found) == 1 for found in splits.values())


def test_what_was_taken_of_texts_that_are_equal_but_for_case_is_in_one_split(workspace: Workspace):
    class Settings(CorpusSettings):
        sources: tuple[SOURCES.union(), ...]

    source = {"kind": "titled", "name": "titled", "licence": "CC0-1.0"}
    raw = {"sources": [source], "dev": 0.2, "test": 0.3, "deduplicate": None}
    splits: dict[str, set[str]] = {}
    for row in rows_of(build(Settings.model_validate(raw), workspace)):
        splits.setdefault(row["section"], set()).add(row["split"])
    assert len(splits) == 40
    assert all(len(found) == 1 for found in splits.values())


@pytest.fixture(autouse=True)
def _titled(monkeypatch) -> None:
    """A kind whose documents are there twice, once in capitals, and whose queries were taken from either."""
    monkeypatch.setattr(SOURCES, "_kinds", dict(SOURCES._kinds))

    @SOURCES.register
    class Titled(SourceConfig):
        """Documents in two spellings, each with a query of its own."""

        kind: Literal["titled"]

        def parts(self) -> list[SourcePart]:
            return [SourcePart("titled")]

        def read(self, part: SourcePart) -> Rows:
            for number in range(40):
                for text, query in ((different(number), number + 100), (different(number).upper(), number + 200)):
                    yield RawText(text, f"{number}", "document", self.licence, text[:9])
                    yield RawText(different(query), f"{number}", "query", self.licence, text[:9], parent=text)

        def check(self) -> None:
            pass


def test_an_empty_corpus_names_the_rules_that_dropped_its_texts(tmp_path: Path, corpus_with, workspace: Workspace):
    write_lines(tmp_path / "lines.txt", ["short", "tiny"])
    corpus = corpus_with(kind="text", path="./lines.txt", unit="line")
    with pytest.raises(EmptyCorpusError, match=r"mine: read 2; mine: too short 2.*corpus.clean"):
        build(corpus, workspace)


@pytest.mark.parametrize("choice", [{"limit": 100}, {"weight": 0.5}])
def test_earlier_choices_stay_as_a_source_grows(choice: dict, tmp_path: Path, corpus_with, workspace: Workspace):
    kept = []
    for count in (200, 220):
        write_lines(tmp_path / "lines.txt", [different(i) for i in range(count)])
        kept.append(
            {
                row["id"]
                for row in rows_of(
                    build(corpus_with(kind="text", path="./lines.txt", unit="line", **choice), workspace)
                )
            }
        )
    assert 80 <= len(kept[0]) <= 120
    assert len(kept[0] & kept[1]) >= (len(kept[0]) if "weight" in choice else 80)


def test_documents_are_cut_and_words_shuffled_as_often_as_the_recipe_says(
    tmp_path: Path, corpus_with, workspace: Workspace
):
    texts = [" ".join(f"{different(i * 20 + j)}" for j in range(6)) for i in range(300)]
    write_lines(tmp_path / "lines.txt", texts)
    changes = {"augment": {"cut": 0.3, "max_sentences": 3, "shuffle": 0.1}, "clean": {}, "dev": 0.2, "test": 0.2}
    made = build(corpus_with(changes, kind="text", path="./lines.txt", unit="line"), workspace)
    rows = rows_of(made)
    whole = {row["id"]: row for row in rows if not row["augmentation"]}
    parents = {kind: {row["parent"] for row in rows if row["augmentation"] == kind} for kind in ("cut", "shuffled")}
    assert 60 <= len(parents["cut"]) <= 120
    assert 8 <= len(parents["shuffled"]) <= 40
    assert not (parents["cut"] | parents["shuffled"]) & set(whole)
    for parent in parents["cut"]:
        pieces = [row for row in rows if row["parent"] == parent]
        assert len({row["split"] for row in pieces}) == 1
        assert all(1 <= len(sentences(row["text"])) <= 3 for row in pieces)
        assert any(sorted(" ".join(row["text"] for row in pieces).split()) == sorted(text.split()) for text in texts)
    assert (
        build(corpus_with(changes, kind="text", path="./lines.txt", unit="line"), Workspace(tmp_path / "again"))[
            "corpus"
        ].digest
        == made["corpus"].digest
    )


def write_files(folder: Path, names: list[str]) -> None:
    """Files whose texts overlap: equal ones, near copies, malformed lines."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        random.seed(number)
        rows = [{"text": different(i)} for i in range(number * 30, number * 30 + 60)]
        rows += [{"text": different(7).replace("chapter", f"part {number}")}, {"text": 5}]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_neither_shards_nor_the_order_of_files_change_the_corpus(tmp_path: Path, corpus_with, monkeypatch):
    digests, folder = set(), tmp_path / "data"
    write_files(folder, ["a.jsonl", "b.jsonl", "c.jsonl"])
    for size in (7, 64, 20_000):
        for names in (["a.jsonl", "b.jsonl", "c.jsonl"], ["a.jsonl", "b.jsonl", "c.jsonl"][::-1]):
            monkeypatch.setattr(source_reader, "SHARD_TEXTS", size)
            paths = [folder / name for name in names]
            monkeypatch.setattr(FileSource, "files", lambda _source, paths=paths: paths)
            corpus = corpus_with(kind="jsonl", path="./data", max_malformed=0.1)
            made = build(corpus, Workspace(tmp_path / f"workspace{size}{names[0]}"))
            digests.add(
                (made["corpus"].manifest.outputs["corpus.parquet"], json.dumps(funnel_of(made), sort_keys=True))
            )
    assert len(digests) == 1


def test_only_shards_with_new_texts_are_computed_again(tmp_path: Path, corpus_with, workspace: Workspace, monkeypatch):
    monkeypatch.setattr(source_reader, "SHARD_TEXTS", 50)
    write_lines(tmp_path / "lines.txt", [different(i) for i in range(400)])
    corpus = corpus_with(kind="text", path="./lines.txt", unit="line")
    assert build(corpus, workspace)["cleaned_texts"].manifest.metrics["shards_reused"] == 0
    write_lines(tmp_path / "lines.txt", [different(i) for i in range(404)])
    metrics = build(corpus, workspace)["cleaned_texts"].manifest.metrics
    assert (metrics["shards"], metrics["shards_reused"]) == (9, 8)


def test_only_a_new_file_of_a_folder_is_read(tmp_path: Path, corpus_with, workspace: Workspace, monkeypatch):
    (tmp_path / "data").mkdir()
    for number in range(5):
        write_lines(tmp_path / "data" / f"{number}.txt", [different(10 * number + i) for i in range(10)])
    corpus = corpus_with(kind="text", path="./data", unit="line")
    build(corpus, workspace)
    write_lines(tmp_path / "data" / "more.txt", [different(100 + i) for i in range(10)])
    read: list[str] = []
    read_file = FileSource.read_file

    def note(source: FileSource, path: Path) -> Rows:
        read.append(path.name)
        return read_file(source, path)

    monkeypatch.setattr(FileSource, "read_file", note)
    texts = build(corpus, workspace)["corpus"].manifest.metrics["texts"]
    assert (read, texts) == (["more.txt"], 60)


@pytest.mark.slow
def test_a_build_that_was_killed_anywhere_ends_in_the_same_corpus(tmp_path: Path, raw, corpus_with):
    write_files(tmp_path / "data", ["a.jsonl", "b.jsonl", "c.jsonl"])
    corpus_with(kind="jsonl", path="./data", max_malformed=0.1)
    recipe = write_recipe(tmp_path, raw)

    def run(workspace: str, *kill_at: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.corpus.driver", str(recipe), str(tmp_path / workspace)]
        return subprocess.run([*command, *kill_at], cwd=ROOT, capture_output=True, text=True, check=False)

    undisturbed = run("one")
    assert undisturbed.returncode == 0
    exits = []
    for number in range(1, 60, 4):
        ended = run("two", str(number))
        exits.append(ended.returncode)
        if ended.returncode == 0:
            break
    assert set(exits[:-1]) == {-signal.SIGKILL}
    assert len(exits) >= 5
    assert ended.stdout == undisturbed.stdout


def test_rows_taken_of_a_shard_do_not_keep_all_its_texts_in_memory():
    shard = pl.DataFrame({"text": [f"{i} " + "word " * 200 for i in range(5000)]})
    few = shard[[7, 4000]]
    newest = pl.CompatLevel.newest()  # string views, as polars holds them
    assert few.to_arrow(compat_level=newest).get_total_buffer_size() > 4_000_000
    assert compact(few).to_arrow(compat_level=newest).get_total_buffer_size() < 10_000
    assert compact(few).equals(few)
