"""MaxSim in a table equals MaxSim by hand and by sentence-transformers; an index finds most of it."""

from pathlib import Path

import numpy as np
import pytest

from stella_assets.storage import multi_vectors
from stella_assets.storage.errors import VectorError
from stella_assets.storage.multi_vectors import MultiVectorTable

DIM = 24


def unit(random: np.random.Generator, count: int) -> np.ndarray:
    drawn = random.normal(size=(count, DIM)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def rows() -> list[np.ndarray]:
    """Rows whose vectors lie around one topic each."""
    random = np.random.default_rng(0)
    topics = unit(random, 80)
    drawn = [topics[n % 80] + 0.8 * unit(random, int(random.integers(1, 12))) for n in range(160)]
    return [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in drawn]


def write(folder: Path, rows: list[np.ndarray]) -> MultiVectorTable:
    names = [f"row {n}" for n in range(len(rows))]
    batches = [(names[start : start + 50], rows[start : start + 50]) for start in range(0, len(rows), 50)]
    return MultiVectorTable.write(folder, DIM, batches)


@pytest.mark.parametrize("tokens", [1, 7])
def test_exact_search_gives_the_maxsim_of_sentence_transformers(tokens: int, rows: list[np.ndarray], tmp_path: Path):
    import torch
    from sentence_transformers.util.similarity import maxsim

    query = unit(np.random.default_rng(1), tokens)
    expected = maxsim([torch.from_numpy(query)], [torch.from_numpy(row.astype(np.float32)) for row in rows])[0].numpy()
    found = write(tmp_path / "table", rows).nearest(query, len(rows))
    assert len(found) == len(rows)
    scores = {int(name.removeprefix("row ")): score for name, score in found}
    np.testing.assert_allclose([scores[n] for n in range(len(rows))], expected, atol=1e-3 * tokens)
    assert [score for _, score in found] == sorted(scores.values(), reverse=True)


def test_an_index_finds_most_of_it_and_leaves_exact_search_as_it_was(rows: list[np.ndarray], tmp_path: Path):
    table = write(tmp_path / "table", rows)
    random = np.random.default_rng(2)
    queries = [rows[n][:4] + 0.2 * unit(random, len(rows[n][:4])) for n in range(20)]
    queries = [query / np.linalg.norm(query, axis=1, keepdims=True) for query in queries]
    exact = [table.nearest(query, 5) for query in queries]
    assert table.build_index(sum(map(len, rows)), DIM) == 1
    assert [table.nearest(query, 5) for query in queries] == exact
    (tmp_path / "table").rename(tmp_path / "moved")  # as a finished artefact is
    moved = MultiVectorTable(tmp_path / "moved")
    shares = [
        len({name for name, _ in right} & {name for name, _ in moved.nearest(query, 5, exact=False)}) / 5
        for query, right in zip(queries, exact, strict=True)
    ]
    assert np.mean(shares) > 0.8


def test_many_queries_find_in_one_pass_what_each_finds_by_itself(
    rows: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(multi_vectors, "BATCH", 33)
    table = write(tmp_path / "table", rows)
    queries = [unit(np.random.default_rng(n), 3 + n) for n in range(4)]
    for query, found in zip(queries, table.nearest_of_many(queries, 5), strict=True):
        names, scores = zip(*found, strict=True)
        expected, expected_scores = zip(*table.nearest(query, 5), strict=True)
        assert names == expected
        np.testing.assert_allclose(scores, expected_scores, atol=1e-3)


def test_few_vectors_have_no_index(rows: list[np.ndarray], tmp_path: Path):
    table = write(tmp_path / "table", rows[:3])
    assert table.build_index(sum(map(len, rows[:3])), DIM) == 0
    assert table.nearest(rows[0], 1, exact=False)[0][0] == "row 0"
    assert len(table) == 3


@pytest.mark.parametrize("wrong", ["norm", "empty", "dimensions"])
def test_what_is_not_a_list_of_unit_vectors_is_refused(wrong: str, rows: list[np.ndarray], tmp_path: Path):
    bad = {"norm": 2 * rows[1], "empty": rows[1][:0], "dimensions": rows[1][:, :5]}[wrong]
    with pytest.raises(VectorError, match="row 1 of its unit"):
        write(tmp_path / "table", [rows[0], bad])
