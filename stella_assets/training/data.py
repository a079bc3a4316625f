"""Batches of vectors for training, in an order that depends on the seed and the step alone, read ahead of their use.

Shapes: B texts of a batch, D dimensions of all teachers side by side.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from storage.workspace import Workspace
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from stella_assets.core.batching import padded_widths
from stella_assets.training.plan import GROUP_COST, BatchPlan, equal_groups, length_groups
from stella_assets.training.targets import Targets
from stella_assets.training.tokens import TokenTable
from storage.snapshot import Snapshot

SHARED_PASSES = 4
"""Groups of a batch where several processes share it."""

READ_TOGETHER = 4
"""Batches that are read at once: a read has its fixed cost."""


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


@dataclass(frozen=True)
class SnapshotReference:
    """Names a snapshot; what travels to a worker instead of an open table, which must not be forked."""

    workspace: Workspace
    recipe: str
    tag: str

    def open(self) -> Snapshot:
        """Open the snapshot, in the process that reads it."""
        return Snapshot.open(self.workspace, self.recipe, self.tag)


class SnapshotDataset(IterableDataset[VectorBatch]):
    """Batches of one split of a snapshot, for a `DataLoader(dataset, batch_size=None, num_workers=...)`.

    The table is opened in the worker. Workers share the steps out among them, so the loader gives the batches in the
    same order for any number of workers.

    Args:
        reference: The snapshot.
        split: `train`, `dev` or `test`.
        batch_size: Texts of a batch.
        seed: Of the shuffle.
        start: The step to begin at, to resume.
        steps: The step to end before.
    """

    def __init__(
        self, reference: SnapshotReference, split: str, batch_size: int, seed: int, start: int, steps: int
    ) -> None:
        self._reference = reference
        self._split = split
        self._batch_texts = batch_size
        self._seed = seed
        self._steps = range(start, steps)

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[VectorBatch]:
        worker = get_worker_info()
        first, every = (worker.id, worker.num_workers) if worker else (0, 1)
        snapshot = self._reference.open()
        rows = snapshot.rows(self._split)
        plan = BatchPlan(snapshot.text_lengths()[rows], self._seed, batch_size=self._batch_texts)

        def read(steps: Sequence[int]) -> list[VectorBatch]:
            return read_batches(snapshot, {step: rows[plan.positions(step)] for step in steps})

        yield from read_ahead(read, self._steps[first::every])


def read_ahead(read: Any, steps: Sequence[int]) -> Iterator[Any]:
    """What `read` gives for each step, in order; it reads on in the background while batches are used."""
    parts = [steps[start : start + READ_TOGETHER] for start in range(0, len(steps), READ_TOGETHER)]
    with ThreadPoolExecutor(1) as reader:
        ahead = None
        for part in parts:
            now, ahead = ahead, reader.submit(read, part)
            yield from now.result() if now else []
        yield from ahead.result() if ahead else []


def read_batches(snapshot: Snapshot, rows_by_step: Mapping[int, np.ndarray]) -> list[VectorBatch]:
    """Texts and vectors of the batches of some steps, in one read of the store."""
    columns, vectors = snapshot.read(np.concatenate(list(rows_by_step.values())), ["id", "text", "role"])
    batches, start = [], 0
    for step, rows in rows_by_step.items():
        here = slice(start, start + len(rows))
        ids, texts, roles = (columns[name][here] for name in ("id", "text", "role"))
        batches.append(VectorBatch(step, ids, texts, roles, torch.from_numpy(vectors[here])))
        start += len(rows)
    return batches


@dataclass(frozen=True)
class Batch:
    """What a step works with.

    Attributes:
        positions_B: Which texts of the split.
        share: Which of these this process puts through the encoder.
        groups: The texts of the share as the encoder takes them, a group of like length at a time.
        places: For each text of the share, its place in the groups.
        tokens: Of all texts, without padding.
        targets: What the teachers say of all texts.
    """

    positions_B: np.ndarray
    share: slice
    groups: list[dict[str, Any]]
    places: Tensor
    tokens: int
    targets: Targets


@dataclass(frozen=True)
class Reading:
    """How batches are read: this process's place among those of the run, and how groups are cut."""

    group_cost: int = GROUP_COST["cpu"]
    max_texts: int | None = None
    tokens: bool = True
    process: int = 0
    processes: int = 1

    def share(self, texts: int) -> slice:
        """The part of a batch that falls to this process; parts differ by one text at most."""
        bounds = [texts * number // self.processes for number in (self.process, self.process + 1)]
        return slice(*bounds)

    def passes(self, texts: int) -> int:
        """How often each of several processes passes through the encoder for a batch."""
        largest = -(-texts // self.processes)
        return -(-largest // self.max_texts) if self.max_texts else max(1, min(SHARED_PASSES, largest // 8))


class TrainingData:
    """One split of a snapshot, as a student reads it. Tokens and vectors stay on disk until their batch comes."""

    def __init__(
        self,
        snapshot: Snapshot,
        tokens: TokenTable,
        split: str,
        teachers: Sequence[str] | None = None,
        left_out: np.ndarray | None = None,
    ) -> None:
        """Read a split without the rows that are left out."""
        assert len(tokens) == len(snapshot), "tokens and vectors are of the same corpus"
        self.snapshot = snapshot
        self.rows = snapshot.rows(split)
        if left_out is not None:
            self.rows = np.setdiff1d(self.rows, left_out, assume_unique=True)
        self.lengths = tokens.lengths[self.rows]
        self._tokens = tokens.texts
        self._teachers = teachers
        self._widths = padded_widths(self.lengths, int(tokens.lengths.max()))

    def __len__(self) -> int:
        return len(self.rows)

    def first(self, texts: int) -> TrainingData:
        """Only the first texts; ids are hashes, so these are a random sample."""
        sample = copy(self)
        sample.rows, sample.lengths, sample._widths = self.rows[:texts], self.lengths[:texts], self._widths[:texts]
        return sample

    def ids(self, positions_B: np.ndarray) -> list[str]:
        """Hashes of texts."""
        packed = self.snapshot.keys[self.rows[positions_B]].tobytes()
        return [packed[start : start + 16].hex() for start in range(0, len(packed), 16)]

    def targets(self, positions_B: np.ndarray) -> Targets:
        """What the stage's teachers say of texts."""
        return self.read([positions_B], Reading(tokens=False))[0].targets

    def read(self, chosen: Sequence[np.ndarray], reading: Reading) -> list[Batch]:
        """Some batches, their vectors in one read of the store."""
        blocks = torch.from_numpy(self.snapshot.vectors(self.rows[np.concatenate(chosen)]))
        batches = []
        for positions, block in zip(chosen, blocks.split([len(positions) for positions in chosen]), strict=True):
            share = reading.share(len(positions))
            order = self._order(positions[share], reading, len(positions))
            batches.append(
                Batch(
                    positions,
                    share,
                    [self._features(positions[share][group]) for group in order],
                    torch.from_numpy(np.argsort(np.concatenate([*order, np.empty(0, dtype=np.int64)]))),
                    int(self.lengths[positions].sum()),
                    Targets.of(block, self.snapshot.layout, self._teachers),
                )
            )
        return batches

    def _order(self, positions_B: np.ndarray, reading: Reading, batch: int) -> list[np.ndarray]:
        if not reading.tokens:
            return []
        if reading.processes == 1:
            return length_groups(self._widths[positions_B], reading.group_cost, reading.max_texts)
        return equal_groups(self._widths[positions_B], reading.passes(batch))

    def _features(self, positions_B: np.ndarray) -> dict[str, Any]:
        return self._tokens.batch(self.rows[positions_B], int(self._widths[positions_B].max()))


class Stopwatch:
    """Seconds that the training loop waited for its data, and seconds in all."""

    def __init__(self) -> None:
        self.waiting = 0.0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return max(1e-9, time.monotonic() - self._started)

    def watch(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches, with the time that each took to come."""
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            self.waiting += time.monotonic() - asked
            if batch is None:
                return
            yield batch
