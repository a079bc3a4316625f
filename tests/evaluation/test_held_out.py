"""Evaluation data from the corpus' test split."""

import tracemalloc
from collections import Counter

import polars as pl
import pytest

from stella_assets.corpus.pairs import PairTables
from stella_assets.corpus.read import CorpusTexts
from stella_assets.corpus.tables import PAIRS, TEXTS
from stella_assets.corpus.text import text_id, uniform
from stella_assets.evaluation.held_out import HELD_OUT_TASKS, _sentence_and_rest, probe_texts, write_held_out
from stella_assets.evaluation.local_data import TaskDataError
from stella_assets.evaluation.settings import HeldOut


def documents(count: int, sections: int = 2) -> list[dict[str, str]]:
    texts = [f"Function number {i} sorts things. It returns a new list of {i} items." for i in range(count)]
    return [{"id": text_id(t), "text": t, "section": f"package{i % sections}"} for i, t in enumerate(texts)]


def test_retrieval_asks_for_the_rest_of_a_document_by_its_first_sentence():
    tables = HELD_OUT_TASKS["retrieval"].build([], _sentence_and_rest(documents(20), set()))
    corpus = dict(tables["HeldOutRetrieval/corpus"].iter_rows())
    queries = dict(tables["HeldOutRetrieval/queries"].iter_rows())
    judged = tables["HeldOutRetrieval/qrels"]
    assert len(judged) == 20
    for query, document, score in judged.iter_rows():
        number = queries[query].split()[2]
        assert (corpus[document], score) == (f"It returns a new list of {number} items.", 1)


def test_no_part_of_a_training_text_is_asked_about():
    rows = documents(20)
    trained_on = {text_id("Function number 3 sorts things."), text_id("It returns a new list of 4 items.")}
    kept = {half["sentence"] for half in _sentence_and_rest(rows, trained_on)}
    assert len(kept) == 18
    assert not kept & {"Function number 3 sorts things.", "Function number 4 sorts things."}


def test_pairs_are_balanced_and_wrong_halves_come_from_the_same_section():
    halves = _sentence_and_rest(documents(20), set())
    table = HELD_OUT_TASKS["pair_classification"].build([], halves)["HeldOutPairClassification"]
    assert Counter(table["label"]) == {0: 20, 1: 20}
    section = {half["rest"]: half["section"] for half in halves} | {
        half["sentence"]: half["section"] for half in halves
    }
    pairs = zip(table["sentence1"], table["sentence2"], strict=True)
    assert all(section[first] == section[second] for first, second in pairs)


@pytest.mark.parametrize(("others", "most"), [(0, 1000), (100, 32)], ids=["all answer", "most answer nothing"])
def test_the_test_queries_of_pairs_are_asked_where_the_corpus_has_pairs(tmp_path, log, others: int, most: int):
    """Query n is answered by document n; query 3 by document 4, too. Every fifth pair is of the training split."""
    corpus, pairs = tmp_path / "corpus", tmp_path / "pairs"
    for folder in (corpus, pairs, tmp_path / "tasks"):
        folder.mkdir()
    split = ["train" if n % 5 == 0 else "test" for n in range(40)]
    asked, answers = ([f"{word} number {n}, as it stands here." for n in range(40)] for word in ("Query", "Answer"))
    texts = [(text_id(text), text, role, split[n])
             for role, side in (("query", asked), ("document", answers)) for n, text in enumerate(side)]  # fmt: skip
    negatives = [f"Answer number {n} to what nobody asks." for n in range(others)]
    texts += [(text_id(text), text, "document", "test") for text in negatives]
    frame = pl.DataFrame(texts, ["id", "text", "role", "split"], orient="row").sort("id")
    rest = {name: pl.lit("x") for name in TEXTS.schema.names if name not in frame.columns}
    frame.with_columns(**rest).select(TEXTS.schema.names).write_parquet(corpus / TEXTS.file)
    related = [(n, n) for n in range(40)] + [(3, 4)]
    PAIRS.write(pairs, [{"query": text_id(asked[q]), "positive": text_id(answers[d]), "source": "s",
                         "split": split[q], "origin": None} for q, d in related])  # fmt: skip
    check = write_held_out(HeldOut(max_documents=most), CorpusTexts(corpus), tmp_path / "tasks", log, PairTables(pairs))
    assert check.passed
    task = tmp_path / "tasks/HeldOutRetrieval"
    queries, documents = (dict(pl.read_parquet(task / f"{name}.parquet").iter_rows()) for name in ("queries", "corpus"))
    judged = {(queries[q], documents[d]) for q, d, _ in pl.read_parquet(task / "qrels.parquet").iter_rows()}
    assert judged == {(asked[q], answers[d]) for q, d in related if split[q] == "test"}
    table = pl.read_parquet(tmp_path / "tasks/HeldOutPairClassification.parquet")
    wrong = set(table.filter(label=0).select("sentence1", "sentence2").iter_rows())
    assert len(wrong) * 2 == len(table) > 60
    assert not wrong & judged


def test_a_rest_that_several_documents_have_is_no_wrong_partner_of_its_sentences():
    rows = [{"id": str(n), "section": "s", "sentence": f"Sentence {n}.", "rest": "The same rest."} for n in range(4)]
    rows += [{"id": "4", "section": "s", "sentence": "Sentence 4.", "rest": "Another rest."}]
    table = HELD_OUT_TASKS["pair_classification"].build([], rows)["HeldOutPairClassification"]
    assert {(a, b, label) for a, b, label in table.iter_rows()} == {
        ("Sentence 3.", "The same rest.", 1), ("Sentence 3.", "Another rest.", 0),
        ("Sentence 4.", "Another rest.", 1), ("Sentence 4.", "The same rest.", 0),
    }  # fmt: skip


def test_classification_leaves_rare_sections_out():
    rows = documents(80)
    for row in rows[:3]:
        row["section"] = "rare"
    table = HELD_OUT_TASKS["classification"].build(rows, [])["HeldOutClassification"]
    assert set(table["label"]) == {"package0", "package1"}
    assert set(table["split"]) == {"train", "test"}


@pytest.mark.parametrize("kind", HELD_OUT_TASKS)
def test_too_few_test_documents_are_refused_with_the_remedy(kind):
    few = documents(1)
    with pytest.raises(TaskDataError, match=rf"evaluation\.held_out: {kind} .*(Raise|Add)"):
        HELD_OUT_TASKS[kind].build(few, _sentence_and_rest(few, set()))


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> CorpusTexts:
    """20,000 texts of 1,000 characters and more, some of which are the first sentence of another one."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for number in range(20_000):
        sentence = f"Function number {number} sorts things in an order of its own."
        text = f"{sentence} {'It has a long explanation, too. ' * 31}{number}"
        rows.append((text_id(text), text, "document", "test" if number % 4 == 0 else "train"))
        if number % 400 == 0:
            rows.append((text_id(sentence), sentence, "query", "dev"))
    frame = pl.DataFrame(rows, ["id", "text", "role", "split"], orient="row").sort("id")
    rest = {name: pl.lit("x") for name in TEXTS.schema.names if name not in frame.columns}
    frame.with_columns(**rest).select(TEXTS.schema.names).write_parquet(folder / TEXTS.file, row_group_size=1000)
    return CorpusTexts(folder)


def test_held_out_tasks_and_probe_texts_are_the_same_without_all_texts_in_memory(large, tmp_path, log):
    rows = large.table(["id", "text", "split", "role"]).to_pylist()
    seen = {row["id"] for row in rows if row["split"] != "test"}
    documents = [row | {"section": "x"} for row in rows if row["split"] == "test" and row["role"] == "document"]
    documents.sort(key=lambda row: uniform("evaluation", row["id"]))
    expected = HELD_OUT_TASKS["retrieval"].build([], _sentence_and_rest(documents[:1000], seen))
    assert 0 < 1000 - len(expected["HeldOutRetrieval/queries"]) < 50
    ids = [row["id"] for row in documents]
    probes = sorted(ids, key=lambda each: uniform("probe", each))[:128]
    by_id = {row["id"]: row["text"] for row in rows}
    expected_probes = [by_id[each] for each in probes]
    del rows, documents
    tracemalloc.start()
    check = write_held_out(HeldOut.model_validate({"kinds": ["retrieval"]}), large, tmp_path, log)
    found = probe_texts(large)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert check.passed
    for name, table in expected.items():
        assert pl.read_parquet(tmp_path / f"{name}.parquet").equals(table)
    assert found == expected_probes
    assert peak < 10 * 2**20, "all texts have 20 MB"
