"""The teacher-vector store: nothing is embedded twice, nothing bad gets in."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from stella_assets.corpus.text import text_id
from storage.home import Home
from storage.vectors import VectorError, VectorTable


def unit_vectors(texts: list[str], dim: int = 8) -> np.ndarray:
    """Vectors that depend on the text alone."""
    seeds = [int(text_id(text)[:8], 16) for text in texts]
    vectors = np.stack([np.random.default_rng(seed).standard_normal(dim) for seed in seeds]).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def reader(texts: list[str]):
    return lambda positions: [texts[i] for i in positions]


def texts_and_ids(count: int, start: int = 0) -> tuple[list[str], list[str]]:
    texts = [f"text number {i}" for i in range(start, start + count)]
    return [text_id(text) for text in texts], texts


def test_a_text_is_embedded_once_whatever_asks_for_it(home: Home):
    seen: list[str] = []

    def encode(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return unit_vectors(texts)

    ids, texts = texts_and_ids(50)
    cache = VectorTable(home, "f1", 8)
    assert cache.fill(ids[:30], reader(texts[:30]), encode, unit_rows=10) == 30
    assert cache.fill(ids, reader(texts), encode, unit_rows=10) == 20
    assert VectorTable(home, "f1", 8).fill(ids, reader(texts), encode) == 0
    assert sorted(seen) == sorted(texts)
    assert VectorTable(home, "f2", 8).missing(ids).size == 50  # another fingerprint is another teacher


def test_vectors_come_back_in_the_order_asked_for(home: Home):
    ids, texts = texts_and_ids(40)
    VectorTable(home, "f", 8).fill(ids, reader(texts), unit_vectors, unit_rows=7)
    order = np.random.default_rng(0).permutation(40)
    fetched = VectorTable(home, "f", 8).fetch([ids[i] for i in order])
    assert fetched.dtype == np.float16
    np.testing.assert_array_equal(fetched, unit_vectors([texts[i] for i in order]).astype(np.float16))
    with pytest.raises(VectorError, match="1 of 2 texts have no vector"):
        VectorTable(home, "f", 8).fetch([ids[0], "0" * 32])


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (lambda t: unit_vectors(t)[:-1], "answered 10 texts with vectors of shape"),
        (lambda t: unit_vectors(t, dim=9), "shape"),
        (
            lambda t: np.where(np.arange(10)[:, None] == 3, np.nan, unit_vectors(t)),
            "NaN or infinity, the first is row 3",
        ),
        (lambda t: unit_vectors(t) * 2, "not of unit norm; the first has norm 2"),
        (lambda t: np.zeros((10, 8), np.float32), "norm 0"),
    ],
)
def test_bad_vectors_are_refused_and_the_store_stays_as_it_was(home: Home, vectors, message: str):
    ids, texts = texts_and_ids(10)
    cache = VectorTable(home, "f", 8)
    cache.fill(ids[:4], reader(texts[:4]), unit_vectors)
    more_ids, more_texts = texts_and_ids(10, start=100)
    with pytest.raises(VectorError, match=message):
        cache.fill(more_ids, reader(more_texts), vectors)
    assert len(VectorTable(home, "f", 8)) == 4


def _fill(root: Path) -> None:
    ids, texts = texts_and_ids(300)
    VectorTable(Home(root), "shared", 8).fill(ids, reader(texts), unit_vectors, unit_rows=20)


def test_two_processes_that_fill_one_teacher_leave_every_row_once(home: Home):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_fill, args=(home.root,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    ids, texts = texts_and_ids(300)
    cache = VectorTable(home, "shared", 8)
    assert len(cache) == 300
    np.testing.assert_array_equal(cache.fetch(ids), unit_vectors(texts).astype(np.float16))
