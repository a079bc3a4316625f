"""Hashed words and sequences compared with Python's own sets, and what counts as the same text."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stella_assets.corpus.words import band_hashes, hashed_words, is_shared, jaccard, match_form, match_keys, min_hashes

TEXTS = st.lists(st.text("ab cd", min_size=1, max_size=40), min_size=1, max_size=8)


def words_of(texts: list[str]) -> list[list[str]]:
    return [form.split(" ") for form in match_form(pl.Series(texts))]


@given(TEXTS, st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_windows_and_shingles_are_those_of_python(texts: list[str], length: int):
    words = hashed_words(match_form(pl.Series(texts)))
    ids: dict[int, tuple[str, ...]] = {}
    for sequences, pads in ((words.windows(length), False), (words.shingles(length), True)):
        for row, own in enumerate(words_of(texts)):
            expected = [tuple(own[i : i + length]) for i in range(len(own) - length + 1)]
            if pads and len(own) < length:
                expected = [tuple(own)]
            found = sequences.hashes[sequences.offsets[row] : sequences.offsets[row + 1]].tolist()
            assert len(found) == len(expected)
            for value, sequence in zip(found, expected, strict=True):
                if len(sequence) == length:
                    assert ids.setdefault(value, sequence) == sequence


@given(TEXTS)
@settings(max_examples=200, deadline=None)
def test_jaccard_similarity_is_that_of_python_sets(texts: list[str]):
    a, b = texts, texts[::-1]
    words = [hashed_words(match_form(pl.Series(side))).windows(2).distinct() for side in (a, b)]
    sets = [[set(pairwise(own)) for own in words_of(side)] for side in (a, b)]
    expected = [len(x & y) / max(len(x | y), 1) for x, y in zip(*sets, strict=True)]
    np.testing.assert_allclose(jaccard(*words), expected)
    assert is_shared(*words).sum() == sum(len(x & y) for x, y in zip(*sets, strict=True))


def test_case_spacing_and_punctuation_do_not_make_another_text():
    same = [
        "What's  the CAPITAL of France?",
        "what s the capital\nof france",
        "What\u2019s the capital of \uff26rance!",
    ]
    assert len(set(match_keys(match_form(pl.Series(same))).tolist())) == 1
    other = ["the capital of France what's", "!!!", "???", "caf\u00e9", "cafe"]
    assert len(set(match_keys(match_form(pl.Series(other))).tolist())) == len(other)


def test_characters_of_scripts_without_blanks_are_words():
    assert match_form(pl.Series(["深度学习 model"])).to_list() == ["深 度 学 习 model"]
    words = hashed_words(match_form(pl.Series(["深度学习很有用", "深度学习没有用"])))
    assert words.counts.tolist() == [7, 7]
    assert jaccard(words.distinct().take(np.array([0])), words.distinct().take(np.array([1])))[0] > 0.5


@pytest.mark.parametrize(("bands", "rows", "threshold"), [(20, 5, 0.8), (50, 4, 0.6)])
def test_bands_find_pairs_as_often_as_theory_says(bands: int, rows: int, threshold: float):
    random = np.random.default_rng(0)
    size, overlap = 60, round(2 * 60 * threshold / (1 + threshold))
    left, right = [], []
    for pair in range(300):
        vocabulary = [f"w{pair}x{i}" for i in random.permutation(1000)]
        left.append(" ".join(vocabulary[:size]))
        right.append(" ".join(vocabulary[size - overlap : 2 * size - overlap]))
    a, b = (hashed_words(match_form(pl.Series(side))).distinct() for side in (left, right))
    similarity = jaccard(a, b)
    found = (
        band_hashes(min_hashes(a, bands * rows, 1), bands) == band_hashes(min_hashes(b, bands * rows, 1), bands)
    ).any(0)
    expected = 1 - (1 - similarity.mean() ** rows) ** bands
    assert found.mean() >= expected - 0.03
