"""Batches from a snapshot: the same for any number of workers, and from any step."""

import itertools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.snapshot import Snapshot
from stella_assets.training.data import Reading
from stella_assets.training.plan import BatchSizeError
from stella_assets.training.snapshot_batches import SnapshotDataset, VectorBatch
from stella_assets.training.snapshot_reference import SnapshotReference
from tests.snapshots import Corpus, Teacher, write
from tests.training.conftest import Lesson

BATCH = 8


@pytest.fixture
def reference(workspace: Workspace) -> SnapshotReference:
    write(workspace, "one", Corpus(range(120)), Teacher("small", 3), Teacher("wide", 5))
    return SnapshotReference(workspace, "tiny", "one")


def batches(reference: SnapshotReference, workers: int = 0, start: int = 0, seed: int = 1) -> list[VectorBatch]:
    dataset = SnapshotDataset(reference, "train", BATCH, seed, start, 20)
    context = "spawn" if workers else None  # Lance must not be forked once it has run in this process
    return list(DataLoader(dataset, batch_size=None, num_workers=workers, multiprocessing_context=context))


def same(a: VectorBatch, b: VectorBatch) -> bool:
    return (a.step, a.ids, a.texts, a.roles) == (b.step, b.ids, b.texts, b.roles) and torch.equal(
        a.vectors_BD, b.vectors_BD
    )


def test_batches_are_contiguous_float16_blocks_of_the_right_rows(reference: SnapshotReference):
    snapshot = reference.open()
    ids = snapshot.take(np.arange(len(snapshot)), ["id"])["id"]
    for batch in batches(reference):
        assert batch.vectors_BD.dtype == torch.float16
        assert batch.vectors_BD.is_contiguous()
        rows = [ids.index(key) for key in batch.ids]
        np.testing.assert_array_equal(batch.vectors_BD.numpy(), snapshot.vectors(rows))
        assert batch.texts == snapshot.take(rows, ["text"])["text"]


def test_an_epoch_holds_every_training_text_at_most_once_and_no_other(reference: SnapshotReference):
    snapshot: Snapshot = reference.open()
    of_split = set(snapshot.take(snapshot.rows("train"), ["id"])["id"])
    epoch = list(itertools.chain.from_iterable(batch.ids for batch in batches(reference)[: 96 // BATCH]))
    assert len(epoch) == len(set(epoch)) == 96
    assert set(epoch) == of_split


def test_any_number_of_workers_gives_the_same_batches(reference: SnapshotReference):
    expected = batches(reference)
    assert [batch.step for batch in expected] == list(range(20))
    for found, wanted in zip(batches(reference, workers=2), expected, strict=True):
        assert same(found, wanted)


def test_a_resumed_reader_gives_the_remaining_batches(reference: SnapshotReference):
    for found, wanted in zip(batches(reference, start=13), batches(reference)[13:], strict=True):
        assert same(found, wanted)
    assert not same(batches(reference, seed=2)[0], batches(reference)[0])


def test_too_few_texts_for_a_batch_are_refused(reference: SnapshotReference):
    with pytest.raises(BatchSizeError, match=r"batch_size 500 is more than there is to train on: 96 texts"):
        next(iter(SnapshotDataset(reference, "train", 500, 0, 0, 1)))


def test_a_process_without_texts_passes_through_the_encoder_as_often_as_the_others(lesson: Lesson):
    """One text for two processes: the first had nothing to pass, and the second waited for it for ever."""
    data = lesson.data()["train"]
    for chosen, most in ((np.array([3]), None), (np.array([3, 4, 5]), 1)):
        readings = [Reading(max_texts=most, process=process, processes=2) for process in range(2)]
        parts = [data.read([chosen], reading)[0] for reading in readings]
        assert len({len(part.groups) for part in parts}) == 1
        assert [len(part.places) for part in parts] == [part.share.stop - part.share.start for part in parts]
        for part in parts:
            rows = np.concatenate([group["input_ids"][:, :3].numpy() for group in part.groups])[part.places.numpy()]
            tokens = [data._features(chosen[part.share][[i]])["input_ids"][0, :3].numpy() for i in range(len(rows))]
            np.testing.assert_array_equal(rows, np.array(tokens).reshape(len(rows), 3))
