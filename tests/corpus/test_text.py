"""The normal form of a text, and choices that depend on the text alone."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from stella_assets.corpus.sentences import first_sentence
from stella_assets.corpus.text import normalise, splits_of, text_id, uniform, uniforms


@given(st.text())
def test_normalising_twice_changes_nothing(text: str):
    once = normalise(pl.Series([text]))
    assert normalise(once).to_list() == once.to_list()


def test_texts_that_look_alike_have_one_id():
    variants = ["Café  au\tlait.\r\n\r\n\r\n\r\nNext", "Cafe\u0301 au lait. \n\nNext", "\ufeffCafé au lait.\n\n\nNext "]
    assert len({text_id(text) for text in normalise(pl.Series(variants))}) == 1


def test_first_sentences_end_where_people_end_them():
    assert first_sentence("Sort it, e.g. by name. Then go on.") == ("Sort it, e.g. by name.", "Then go on.")
    assert first_sentence("Only one sentence.") == ("Only one sentence.", "")
    assert first_sentence("A title\n\nA paragraph. More.") == ("A title", "A paragraph. More.")
    assert first_sentence("Version 3.11 is needed. See below.") == ("Version 3.11 is needed.", "See below.")


def test_splits_have_the_stated_sizes_and_do_not_move_when_others_come():
    ids = pl.Series([text_id(str(i)) for i in range(4000)])
    splits = splits_of(ids, {"test": 0.2, "dev": 0.1})
    assert abs((splits == "test").mean() - 0.2) < 0.03
    assert abs((splits == "dev").mean() - 0.1) < 0.03
    assert splits_of(ids.head(100).reverse(), {"test": 0.2, "dev": 0.1}).reverse().equals(splits.head(100))
    draws = [uniform("split", i) for i in ids]
    assert uniforms("split", ids).tolist() == draws
    assert splits.to_list() == ["test" if x < 0.2 else "dev" if x < 0.3 else "train" for x in draws]
