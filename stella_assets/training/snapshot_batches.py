"""Batches of a snapshot for a `DataLoader` of torch: for training code outside this pipeline.

Shapes: B texts of a batch, D dimensions of all teachers side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from stella_assets.teachers.snapshot import Snapshot
from stella_assets.training.plan import BatchPlan
from stella_assets.training.read_ahead import read_ahead
from stella_assets.training.snapshot_reference import SnapshotReference


@dataclass(frozen=True)
class VectorBatch:
    """A batch as the store gives it.

    Attributes:
        step: The step that it is for.
        ids: Hashes of the texts.
        texts: The texts.
        roles: `document` or `query`.
        vectors_BD: The teachers' unit vectors side by side, one contiguous float16 block.
    """

    step: int
    ids: list[str]
    texts: list[str]
    roles: list[str]
    vectors_BD: Tensor

    def pin_memory(self) -> VectorBatch:
        """The batch with its vectors in pinned memory; `DataLoader(pin_memory=True)` asks for it."""
        return VectorBatch(self.step, self.ids, self.texts, self.roles, self.vectors_BD.pin_memory())


class SnapshotDataset(IterableDataset[VectorBatch]):
    """Batches of one split of a snapshot, for a `DataLoader(dataset, batch_size=None, num_workers=...)`.

    The table is opened in the worker. Workers divide the steps among them, so the loader gives the batches in the
    same order for any number of workers.

    Args:
        reference: The snapshot.
        split: `train`, `dev` or `test`.
        batch_size: Texts of a batch.
        seed: Of the shuffle.
        start: The step to begin at, to resume.
        steps: The step to end before.

    Example:
        >>> dataset = SnapshotDataset(reference, "train", batch_size=256, seed=0, start=0, steps=1000)
        >>> for batch in DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="spawn"):
        ...     batch.vectors_BD  # [256, D] float16
    """

    def __init__(
        self, reference: SnapshotReference, split: str, batch_size: int, seed: int, start: int, steps: int
    ) -> None:
        # Plain values only: a spawned worker gets the dataset pickled.
        self._reference = reference
        self._split = split
        self._batch_size = batch_size
        self._seed = seed
        self._steps = range(start, steps)

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[VectorBatch]:
        worker = get_worker_info()
        # The loader takes from its workers in turn, so worker k of n makes the steps k, k + n, k + 2 n, ...
        first, every = (worker.id, worker.num_workers) if worker else (0, 1)
        snapshot = self._reference.open()
        rows = snapshot.rows(self._split)
        # With a batch size the lengths do not decide anything but how many texts there are.
        plan = BatchPlan(snapshot.text_lengths()[rows], self._seed, batch_size=self._batch_size)

        def read(steps: Sequence[int]) -> list[VectorBatch]:
            return read_batches(snapshot, {step: rows[plan.positions(step)] for step in steps})

        yield from read_ahead(read, self._steps[first::every])


def read_batches(snapshot: Snapshot, rows_by_step: Mapping[int, np.ndarray]) -> list[VectorBatch]:
    """Texts and vectors of the batches of some steps, in one read of the store.

    Args:
        snapshot: Where they are.
        rows_by_step: Rows of the snapshot, by step.

    Returns:
        One batch per step, in the order of `rows_by_step`.
    """
    columns, vectors = snapshot.read(np.concatenate(list(rows_by_step.values())), ["id", "text", "role"])
    batches, start = [], 0
    for step, rows in rows_by_step.items():
        here = slice(start, start + len(rows))
        ids, texts, roles = (columns[name][here] for name in ("id", "text", "role"))
        batches.append(VectorBatch(step, ids, texts, roles, torch.from_numpy(vectors[here])))
        start += len(rows)
    return batches
