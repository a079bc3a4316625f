"""Pairs from sources and from documents: which stay, which are dropped and why, and that no text crosses splits."""

import json
import logging
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stella_assets.core.runner import Runner
from stella_assets.core.step import Artefact, Step
from stella_assets.corpus.errors import EmptyCorpusError, SourceError
from stella_assets.corpus.pair_rules import divide
from stella_assets.corpus.pairs import PairTables, pairs_step
from stella_assets.corpus.read import CorpusTexts
from stella_assets.corpus.settings import CorpusSettings
from stella_assets.corpus.text import text_id
from stella_assets.storage.workspace import Workspace
from tests.corpus.conftest import corpus_steps, different

COLUMNS = {"query": "q", "positive": "a"}


def question(number: int) -> str:
    return f"How is {different(number).split(',')[0].lower()} told?"


def answer(number: int) -> str:
    return different(1000 + number)


def with_pairs(corpus: CorpusSettings) -> list[Step[Any]]:
    steps = corpus_steps(corpus)
    by_name = {step.name: step for step in steps}
    removals = [step for step in steps if step.name in ("cleaned_texts", "contamination")]
    return [
        *steps,
        pairs_step("tiny", corpus=corpus, texts=by_name["corpus"], duplicates=by_name["duplicates"], removals=removals),
    ]


def make(corpus: CorpusSettings, workspace: Workspace) -> tuple[PairTables, pl.DataFrame, Artefact]:
    """The pairs, the texts of the corpus, and the artefact of the pairs."""
    runner = Runner(workspace, logging.getLogger("test"))
    made = {step.name: runner.make(step) for step in with_pairs(corpus)}
    texts = pl.DataFrame(CorpusTexts(made["corpus"].folder).table(["id", "text", "split", "role", "source"]))
    return PairTables(made["pairs"].folder), texts, made["pairs"]


def dropped(artefact: Artefact) -> dict[tuple[str, str], int]:
    rows = pl.read_parquet(artefact.folder / "pair_funnel.parquet").to_dicts()
    return {(row["kind"], row["rule"]): row["pairs"] for row in rows}


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture
def settings(corpus_with):
    def make_settings(changes: dict[str, Any] | None = None, **source: Any) -> CorpusSettings:
        base = {"clean": {}, "dev": 0.2, "test": 0.2}
        return corpus_with(base | (changes or {}), **({"kind": "jsonl", "path": "./pairs.jsonl"} | source))

    return make_settings


def test_the_texts_of_pairs_are_in_the_corpus_and_no_text_crosses_splits(tmp_path, settings, workspace):
    # Two questions have the same answer each, and each question has a further answer of its own.
    rows = [{"q": question(n), "a": [answer(n // 2), answer(500 + n)]} for n in range(60)]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    tables, texts, artefact = make(settings(columns={"query": "q", "positive": "a[]"}), workspace)
    pairs = tables.pairs()
    assert set(pairs.select("query", "positive").iter_rows()) == {
        (text_id(row["q"]), text_id(each)) for row in rows for each in row["a"]
    }
    split = dict(texts.select("id", "split").iter_rows())
    assert all(split[q] == split[p] == s for q, p, s in pairs.select("query", "positive", "split").iter_rows())
    assert set(pairs["split"]) == {"train", "dev", "test"}
    roles = dict(texts.select("text", "role").iter_rows())
    assert {roles[row["q"]] for row in rows} == {"query"}
    assert {roles[row["a"][0]] for row in rows} == {"document"}
    assert artefact.manifest.metrics["pairs"] == 120
    assert all(check.passed for check in artefact.manifest.checks)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_each_kind_of_file_gives_the_same_pairs(tmp_path, settings, workspace, kind):
    table = pa.Table.from_pylist([{"q": question(n), "a": answer(n)} for n in range(40)])
    path = tmp_path / f"pairs.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind == "csv":
        pl.DataFrame(table).write_csv(path)
    else:
        pl.DataFrame(table).write_ndjson(path)
    tables, _, _ = make(settings(kind=kind, path=f"./{path.name}", columns=COLUMNS), workspace)
    found = set(tables.pairs().select("query", "positive").iter_rows())
    assert found == {(text_id(question(n)), text_id(answer(n))) for n in range(40)}


def test_every_pair_that_is_dropped_is_counted_with_its_reason(tmp_path, settings, workspace):
    good = [{"q": question(n), "a": answer(n)} for n in range(40)]
    bad = [
        {"q": question(50), "a": question(50).upper()},  # its own positive, but for case
        {"q": question(51), "a": ""},
        {"q": None, "a": answer(52)},
        {"q": question(53), "a": "too short"},
        {"q": "?", "a": answer(54)},
        {"q": f"  {question(0)}", "a": answer(0).replace(",", " ,")},  # pair 0, but for spacing
    ]
    write_jsonl(tmp_path / "pairs.jsonl", good + bad)
    tables, texts, artefact = make(settings(columns=COLUMNS), workspace)
    assert dropped(artefact) == {
        ("pair", "read"): 46,
        ("pair", "kept"): 40,
        ("pair", "query is its own positive"): 1,
        ("pair", "empty"): 2,
        ("pair", "positive not in the corpus"): 1,
        ("pair", "query not in the corpus"): 1,
        ("pair", "duplicate"): 1,
    }
    why = pl.read_parquet(artefact.folder / "dropped_pairs.parquet")
    short = why.filter(pl.col("rule") == "positive not in the corpus").row(0, named=True)
    assert (short["query"], short["document"], short["detail"]) == (question(53), "too short", "too short")
    assert set(tables.pairs()["positive"]) <= set(texts["id"])


def test_a_pair_whose_text_equals_another_one_but_for_case_has_the_text_that_stays(tmp_path, settings, workspace):
    rows = [{"q": question(n), "a": answer(n)} for n in range(40)]
    rows += [{"q": question(60), "a": answer(0).upper()}]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    tables, texts, _ = make(settings(columns=COLUMNS), workspace)
    (positive,) = tables.pairs().filter(pl.col("query") == text_id(question(60)))["positive"]
    assert positive in (text_id(answer(0)), text_id(answer(0).upper()))
    assert positive in set(texts["id"])
    # Both questions are in the split of the answer that they share.
    split = dict(texts.select("id", "split").iter_rows())
    assert split[text_id(question(60))] == split[text_id(question(0))]


def test_negatives_stay_where_they_are_and_are_dropped_where_they_answer_the_query(tmp_path, settings, workspace):
    rows = [{"q": question(n), "a": answer(n), "no": [answer((n + 1) % 60), answer(n)]} for n in range(60)]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    tables, texts, artefact = make(settings(columns={**COLUMNS, "negatives": "no[]"}), workspace)
    split = dict(texts.select("id", "split").iter_rows())
    same = [n for n in range(60) if split[text_id(question(n))] == split[text_id(answer((n + 1) % 60))]]
    # A chain of negatives would put all texts into one split.
    assert 10 < len(same) < 60
    assert set(tables.negatives().select("query", "negative").iter_rows()) == {
        (text_id(question(n)), text_id(answer((n + 1) % 60))) for n in same
    }
    counts = dropped(artefact)
    assert counts["negative", "negative is a positive"] == 60
    assert counts["negative", "in another split than the query"] == 60 - len(same)


def test_scored_pairs_are_kept_apart_and_may_be_of_two_documents(tmp_path, settings, workspace):
    rows = [{"q": answer(n), "a": answer(500 + n), "s": str(n / 10)} for n in range(40)]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    columns = {**COLUMNS, "score": "s", "symmetric": True}
    tables, texts, artefact = make(settings(columns=columns), workspace)
    assert set(texts["role"]) == {"document"}
    assert set(tables.scores().select("query", "document", "score").iter_rows()) == {
        (text_id(answer(n)), text_id(answer(500 + n)), n / 10) for n in range(40)
    }
    assert artefact.manifest.metrics["pairs"] == 0
    assert artefact.manifest.metrics["scored"] == 40


def test_scores_that_are_all_equal_leave_no_pairs_and_say_so(tmp_path, settings, workspace):
    write_jsonl(tmp_path / "pairs.jsonl", [{"q": question(n), "a": answer(n), "s": 1} for n in range(40)])
    with pytest.raises(EmptyCorpusError, match=r"pairs: none are left \(.*mine: scores all equal 40\)"):
        make(settings(columns={**COLUMNS, "score": "s"}), workspace)


@pytest.mark.parametrize(
    ("row", "columns", "why"),
    [
        ({"q": "a", "a": "b", "s": "high"}, {**COLUMNS, "score": "s"}, "the score 's' is 'high', not a finite number"),
        ({"q": "a", "a": "b", "s": float("nan")}, {**COLUMNS, "score": "s"}, "the score 's' is 'nan', not a finite"),
        ({"q": "a", "a": "b"}, {**COLUMNS, "score": "s"}, "the score 's' is missing"),
        ({"q": "a"}, COLUMNS, "no text under 'a'; the row has q"),
        ({"q": "a", "a": 5}, COLUMNS, "'a' is int, not text"),
    ],
)
def test_rows_that_are_no_pairs_stop_the_run_before_it_begins(tmp_path, settings, row, columns, why):
    write_jsonl(tmp_path / "pairs.jsonl", [row])
    with pytest.raises(SourceError, match=why.replace("(", r"\(")):
        settings(columns=columns).sources[0].preview()


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"query": "q"}, "`query` and `positive` are the two columns of a pair"),
        ({"score": "s"}, "need `query` and `positive`"),
        ({**COLUMNS, "text": "t"}, "`text` and `role` are of single texts"),
        ({**COLUMNS, "score": "s", "negatives": "n"}, "either a `score` or `negatives`"),
    ],
)
def test_columns_that_contradict_one_another_are_refused(settings, columns, why):
    with pytest.raises(ValueError, match=why):
        settings(columns=columns)


def test_documents_are_divided_by_a_rule_and_their_parts_are_pairs(tmp_path, settings, workspace):
    documents = [f"{different(n)} {different(100 + n)} {different(200 + n)}" for n in range(40)]
    (tmp_path / "lines.txt").write_text("\n".join([*documents, different(300)]))
    source = {"kind": "text", "path": "./lines.txt", "unit": "line", "pairs": "first_sentence"}
    tables, texts, _ = make(settings(**source), workspace)
    expected = {(text_id(different(n)), text_id(f"{different(100 + n)} {different(200 + n)}")) for n in range(40)}
    assert set(tables.pairs().select("query", "positive").iter_rows()) == expected
    # In place of the whole documents; the one that cannot be divided stays.
    assert text_id(different(300)) in set(texts["id"])
    assert len(texts) == 81


@pytest.mark.parametrize(
    ("rule", "text", "parts"),
    [
        ("first_line", "On lenses\nThey bend light.", ("On lenses", "They bend light.")),
        ("first_line", "One line only.", None),
        ("question", "What is it? A lens. It bends light.", ("What is it?", "A lens. It bends light.")),
        ("question", "what is a lens?\n- a piece of glass", ("what is a lens?", "- a piece of glass")),
        ("question", "A lens is a piece of glass. Is it? Yes.", None),
        ("question", "What is a lens?", None),
        ("first_sentence", "It bends light. So it works.", ("It bends light.", "So it works.")),
    ],
)  # fmt: skip
def test_a_rule_divides_a_document_or_leaves_it_whole(rule, text, parts):
    assert divide(text, rule) == parts


def test_a_limit_keeps_or_drops_pairs_as_a_whole(tmp_path, settings, workspace):
    write_jsonl(tmp_path / "pairs.jsonl", [{"q": question(n), "a": answer(n)} for n in range(60)])
    tables, texts, artefact = make(settings(columns=COLUMNS, limit=60), workspace)
    assert len(tables.pairs()) == 30
    assert len(texts) == 60
    assert dropped(artefact)["pair", "query not in the corpus"] == 30


def test_the_same_pairs_in_another_order_give_the_same_files(tmp_path, settings):
    rows = [{"q": question(n), "a": answer(n), "no": [answer((n + 1) % 60)]} for n in range(60)]
    digests = []
    for name, order in (("one", rows), ("two", rows[::-1])):
        write_jsonl(tmp_path / "pairs.jsonl", order)
        home = Workspace(tmp_path / name)
        _, _, artefact = make(settings(columns={**COLUMNS, "negatives": "no[]"}), home)
        digests.append(pq.read_table(artefact.folder / "pairs.parquet").drop_columns(["origin"]))
    assert digests[0].equals(digests[1])
