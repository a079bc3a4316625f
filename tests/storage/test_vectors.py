"""The teacher-vector store: nothing is embedded twice, and bad vectors are refused."""

import contextlib
import multiprocessing
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stella_assets.corpus.text import text_id
from stella_assets.storage.database import open_table
from stella_assets.storage.errors import VectorError
from stella_assets.storage.integrity import verify_table
from stella_assets.storage.units import append_units, write_unit
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.tables import VECTORS
from stella_assets.teachers.vectors import VectorTable


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


def test_a_text_is_embedded_once_whatever_asks_for_it(workspace: Workspace):
    seen: list[str] = []

    def encode(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return unit_vectors(texts)

    ids, texts = texts_and_ids(50)
    cache = VectorTable(workspace, "f1", 8)
    assert cache.fill(ids[:30], reader(texts[:30]), encode, unit_rows=10) == 30
    assert cache.fill(ids, reader(texts), encode, unit_rows=10) == 20
    assert VectorTable(workspace, "f1", 8).fill(ids, reader(texts), encode) == 0
    assert sorted(seen) == sorted(texts)
    assert VectorTable(workspace, "f2", 8).missing(ids).size == 50  # another fingerprint is another teacher


def test_vectors_are_read_in_the_order_asked_for(workspace: Workspace):
    ids, texts = texts_and_ids(40)
    VectorTable(workspace, "f", 8).fill(ids, reader(texts), unit_vectors, unit_rows=7)
    order = np.random.default_rng(0).permutation(40)
    fetched = VectorTable(workspace, "f", 8).fetch([ids[i] for i in order])
    assert fetched.dtype == np.float16
    np.testing.assert_array_equal(fetched, unit_vectors([texts[i] for i in order]).astype(np.float16))
    with pytest.raises(VectorError, match="1 of 2 ids have no value"):
        VectorTable(workspace, "f", 8).fetch([ids[0], "0" * 32])


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (lambda t: unit_vectors(t)[:-1], r"got vectors of shape \(9, 8\), not \(10, 8\)"),
        (lambda t: unit_vectors(t, dim=9), "shape"),
        (
            lambda t: np.where(np.arange(10)[:, None] == 3, np.nan, unit_vectors(t)),
            "NaN or infinity.*the first is row 3",
        ),
        (lambda t: unit_vectors(t) * 2, "not of unit norm; the first is row 0 of its unit with norm 2"),
        (lambda t: np.zeros((10, 8), np.float32), "norm 0"),
    ],
)
def test_bad_vectors_are_refused_and_the_store_stays_as_it_was(workspace: Workspace, vectors, message: str):
    ids, texts = texts_and_ids(10)
    cache = VectorTable(workspace, "f", 8)
    cache.fill(ids[:4], reader(texts[:4]), unit_vectors)
    more_ids, more_texts = texts_and_ids(10, start=100)
    with pytest.raises(VectorError, match=message):
        cache.fill(more_ids, reader(more_texts), vectors)
    assert len(VectorTable(workspace, "f", 8)) == 4


def _fill(root: Path) -> None:
    ids, texts = texts_and_ids(300)
    VectorTable(Workspace(root), "shared", 8).fill(ids, reader(texts), unit_vectors, unit_rows=20)


def test_two_processes_that_fill_one_teacher_leave_every_row_once(workspace: Workspace):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_fill, args=(workspace.root,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    ids, texts = texts_and_ids(300)
    cache = VectorTable(workspace, "shared", 8)
    assert len(cache) == 300
    np.testing.assert_array_equal(cache.fetch(ids), unit_vectors(texts).astype(np.float16))


def _fill_from_a_machine(root: Path, vectors: str, start: int, together: Any) -> None:
    ids, texts = texts_and_ids(200, start)
    table = VectorTable(Workspace(root, vectors), "shared", 8)

    def encode(unit: list[str]) -> np.ndarray:
        together.wait(600)  # both know what is missing, and have the same texts to embed
        return unit_vectors(unit)

    with contextlib.suppress(threading.BrokenBarrierError):
        table.fill(ids, reader(texts), encode, unit_rows=50)
    together.abort()
    table.fill(ids, reader(texts), unit_vectors, unit_rows=50)


@pytest.mark.parametrize("apart", [0, 20, 100])
def test_machines_that_share_a_store_but_no_locks_leave_every_row_once(tmp_path: Path, apart: int):
    vectors = str(tmp_path / "vectors")
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(2)
    workers = [
        context.Process(target=_fill_from_a_machine, args=(tmp_path / str(n), vectors, n * apart, together))
        for n in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    ids, texts = texts_and_ids(200 + apart)
    workspace = Workspace(tmp_path / "third", vectors)
    assert verify_table(workspace, VECTORS + "shared").damages == []
    table = VectorTable(workspace, "shared", 8)
    assert len(table) == len(ids)
    np.testing.assert_array_equal(table.fetch(ids), unit_vectors(texts).astype(np.float16))


def test_duplicate_units_of_a_killed_writer_are_removed_by_the_next(workspace: Workspace):
    ids, texts = texts_and_ids(60)
    VectorTable(workspace, "f", 8).fill(ids, reader(texts), unit_vectors, unit_rows=20)
    dataset = open_table(workspace, VECTORS + "f")
    double = write_unit(dataset.uri, dataset.to_table().slice(10, 20).combine_chunks(), dataset.schema)
    append_units(dataset.uri, dataset.schema, [double], dataset)
    table = VectorTable(workspace, "f", 8)
    assert len(table) == 80
    assert table.fill(ids, reader(texts), unit_vectors) == 0
    assert len(table) == 60
    assert verify_table(workspace, VECTORS + "f").damages == []


def test_a_table_that_another_machine_makes_meanwhile_keeps_its_rows(tmp_path: Path):
    vectors = str(tmp_path / "vectors")
    here, there = (VectorTable(Workspace(tmp_path / name, vectors), "f", 8) for name in ("here", "there"))
    ids, texts = texts_and_ids(50)

    def encode(unit: list[str]) -> np.ndarray:
        there.fill(ids[:20], reader(texts), unit_vectors)
        return unit_vectors(unit)

    assert here.fill(ids[20:], reader(texts[20:]), encode) == 30
    np.testing.assert_array_equal(here.fetch(ids), unit_vectors(texts).astype(np.float16))


def test_a_writer_that_died_in_its_first_commit_does_not_block_others(workspace: Workspace):
    ids, texts = texts_and_ids(10)
    VectorTable(workspace, "f", 8).fill(ids, reader(texts), unit_vectors)
    for file in Path(workspace.vectors).glob("*/_versions/*"):
        file.unlink()  # the transaction file comes before the manifest
    table = VectorTable(workspace, "f", 8)
    assert table.fill(ids, reader(texts), unit_vectors) == 10
    np.testing.assert_array_equal(table.fetch(ids), unit_vectors(texts).astype(np.float16))


def test_an_unknown_tag_is_an_error_of_the_store(workspace: Workspace):
    from stella_assets.storage.errors import MissingSnapshotError
    from tests.snapshots import Corpus, Teacher, write

    write(workspace, "one", Corpus(range(5)), Teacher("small", 3))
    with pytest.raises(MissingSnapshotError, match="has no tag 'two'"):
        open_table(workspace, "tiny.concatenated_vectors", "two")


def test_an_empty_folder_of_a_removal_that_was_killed_is_not_a_table(workspace: Workspace):
    (Path(workspace.vectors) / "teacher_vectors.f.lance").mkdir(parents=True)
    assert open_table(workspace, "teacher_vectors.f") is None
    assert verify_table(workspace, "teacher_vectors.f").damages == []
    assert len(VectorTable(workspace, "f", 3)) == 0
