"""What the step `retriever/<name>` refuses, before a model is loaded."""

from pathlib import Path

import polars as pl
import pytest

from stella_assets.corpus.pairs import PairTables
from stella_assets.corpus.tables import PAIR_NEGATIVES, PAIRS
from stella_assets.training.retrievers.base import RetrieverError
from stella_assets.training.retrievers.train import find_lists, require_lists
from tests.training.retrievers.conftest import Lists, late


@pytest.fixture
def tables(lists: Lists, tmp_path: Path) -> PairTables:
    for table, rows in ((PAIRS, lists.pairs), (PAIR_NEGATIVES, lists.negatives)):
        table.write(tmp_path, [{name: row.get(name) for name in table.schema.names} for row in rows.to_dicts()])
    return PairTables(tmp_path)


def test_lists_are_of_their_split_and_stated_negatives_come_before_mined_ones(lists, tables):
    train = lists.negatives["query"].to_list()[-1]
    mined = pl.DataFrame({"query": [train], "negative": [lists.pairs["positive"][20]], "rank": [1], "split": ["train"]})
    found = find_lists("retriever/late", late(candidates=9), lists.corpus, tables, mined, lists.scores)
    assert {split: len(each.query_N) for split, each in found.items()} == {"train": 48, "dev": 12}
    assert found["train"].dropped["candidates without a score"] == 1  # the scorer has not seen the mined one
    plain = late(candidates=9, scores=None, losses={"contrastive": 1})
    last = find_lists("retriever/late", plain, lists.corpus, tables, mined, None)["train"].document_NC[-1]
    assert (last != -1).sum() == 7
    assert last[6] == 80


def test_losses_that_compare_candidates_need_negatives(lists, tables):
    PAIR_NEGATIVES.write(tables.folder, PAIR_NEGATIVES.schema.empty_table())
    with pytest.raises(RetrieverError, match="its losses compare candidates of a query, and there are no negatives"):
        find_lists("retriever/late", late(), lists.corpus, tables, None, lists.scores)
    # A batch has negatives for a loss over all of its documents.
    plain = late(scores=None, losses={"contrastive": 1})
    assert len(find_lists("retriever/late", plain, lists.corpus, tables, None, None)["train"].query_N) == 48


def test_scores_that_are_all_equal_leave_nothing_to_learn_from(lists, tables):
    equal = lists.scores.with_columns(score=pl.lit(0.5))
    found = find_lists("retriever/late", late(), lists.corpus, tables, None, equal)
    with pytest.raises(RetrieverError, match=r"there are 0 lists of train pairs, and it needs 6 .*48 scores all equal"):
        require_lists("retriever/late", late(), found)


def test_fewer_lists_than_a_batch_takes_are_told(lists, tables):
    found = find_lists("retriever/late", late(), lists.corpus, tables, None, lists.scores)
    with pytest.raises(RetrieverError, match="there are 48 lists of train pairs, and it needs 64"):
        require_lists("retriever/late", late(batch_size=64), found)
