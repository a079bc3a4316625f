"""Lists are what the pairs, negatives and scores say; what cannot be used is left out and counted."""

from dataclasses import replace

import numpy as np
import polars as pl

from tests.training.retrievers.conftest import DEV, DOCUMENTS, QUERIES, text_id


def test_a_list_is_an_answer_and_negatives_by_rank_with_their_scores(lists):
    found = lists.find("train")
    assert len(found.query_N) == QUERIES - DEV
    assert not any(found.dropped.values())
    scores = {(q, d): s for q, d, s in lists.scores.iter_rows()}
    for query, documents, given in zip(found.query_N, found.document_NC, found.score_NC, strict=True):
        assert documents.tolist() == [QUERIES + query, *(QUERIES + (query + 7 * r) % DOCUMENTS for r in (1, 2, 3))]
        expected = [scores[text_id(query), text_id(d)] for d in documents]
        np.testing.assert_allclose(given, expected, rtol=1e-6)
    spread = found.score_NC.astype(np.float64)
    assert np.isclose(found.deviation, np.sqrt(((spread - spread.mean(axis=1, keepdims=True)) ** 2).mean()))


def test_what_cannot_be_used_is_left_out_and_counted(lists):
    train = [text_id(n) for n in range(DEV, QUERIES)]
    gone = "f" * 32
    of = pl.col("query")
    # One pair whose text is missing, and one negative.
    pairs = pl.concat([lists.pairs, pl.DataFrame({"query": [gone], "positive": [text_id(99)], "split": ["train"]})])
    first = {"query": [train[0]], "negative": [gone], "rank": [0], "split": ["train"]}
    negatives = pl.concat([lists.negatives, pl.DataFrame(first)])
    negatives = negatives.filter(of != train[1])
    answer = pl.col("document") == text_id(QUERIES + DEV + 3)
    scores = lists.scores.filter(~((of == train[3]) & answer))  # its answer has no score
    scores = scores.with_columns(
        score=pl.when(of == train[2]).then(0.5).when((of == train[4]) & (pl.col("score").rank().over("query") == 1))
        .then(float("nan")).otherwise("score")
    )  # fmt: skip
    changed = replace(lists, pairs=pairs, negatives=negatives, scores=scores)
    found = changed.find("train", most=6)
    assert found.dropped == {
        "a text is missing": 1,
        "candidates whose text is missing": 1,
        "the answer has no score": 1 + (4 in missing_answers(scores, train)),
        "candidates without a score": 1 - (4 in missing_answers(scores, train)),
        "too few candidates": 1,
        "scores all equal": 1,
    }
    assert len(found.query_N) == QUERIES - DEV - 3 - (4 in missing_answers(scores, train))
    assert set(found.query_N) & {DEV + 1, DEV + 2, DEV + 3} == set()
    # Without scores only what has no negatives is left out.
    plain = changed.find("train", scored=False)
    assert len(plain.query_N) == QUERIES - DEV - 1
    assert plain.deviation == 1.0
    assert len(changed.find("train", scored=False, least=1).query_N) == QUERIES - DEV


def missing_answers(scores: pl.DataFrame, train: list[str]) -> set[int]:
    """Which of the queries has an answer whose score is not a number."""
    wrong = scores.filter(pl.col("score").is_nan())
    return {n for n, query in enumerate(train) for q, d in wrong.select("query", "document").iter_rows()
            if (q, d) == (query, text_id(QUERIES + DEV + n))}  # fmt: skip


def test_a_batch_has_each_document_once_and_knows_what_answers_what(lists):
    pairs = pl.concat(
        [lists.pairs, pl.DataFrame({"query": [text_id(20)], "positive": [text_id(110)], "split": ["train"]})]
    )
    data = replace(lists, pairs=pairs).data(scored=False)["train"]
    rows = np.arange(len(data))
    batch = data.batch(rows)
    assert len(set(batch.documents)) == len(batch.documents)
    texts = dict(zip(*(lists.corpus.table(["id", "text"])[name].to_pylist() for name in ("id", "text")), strict=True))
    ids = {text: key for key, text in texts.items()}
    assert batch.ids == data.ids(rows) == [ids[text] for text in batch.queries]
    known = set(pairs.select("query", "positive").iter_rows())
    assert batch.ids.count(text_id(20)) == 2
    for row, query in enumerate(batch.ids):
        own = [ids[batch.documents[place]] for place in batch.place_BC[row][batch.there_BC[row]].tolist()]
        assert (query, own[0]) in known
        assert batch.positive_BC[row, 0]
        assert batch.positive_BC[row].sum() == sum((query, document) in known for document in own)
        answers = {ids[batch.documents[place]] for place in batch.answers_BM[row].nonzero()[:, 0].tolist()}
        assert answers == {d for q, d in known if q == query and texts[d] in set(batch.documents)}
    part = batch.part(3, 5)
    for row in range(2):
        for column in range(4):
            assert part.documents[part.place_BC[row, column]] == batch.documents[batch.place_BC[row + 3, column]]
    used = [batch.documents.index(text) for text in part.documents]
    assert np.array_equal(part.answers_BM, batch.answers_BM[3:5][:, used])
