"""Batches of texts with their target vectors, in an order that depends on the seed and the step alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from stella_assets.corpus.text import uniform
from stella_assets.recipe import Student as StudentSpec
from storage.home import Home
from storage.snapshot import Snapshot

BUCKET_BATCHES = 16
"""Batches that are sorted by length together: less padding, and a batch still mixes most of the corpus."""

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

    home: Home
    recipe: str
    tag: str

    def open(self) -> Snapshot:
        """Open the snapshot, in the process that reads it."""
        return Snapshot.open(self.home, self.recipe, self.tag)


class BatchPlan:
    """Which rows make the batch of a step: shuffled by seed and epoch, and of like length within a batch."""

    def __init__(self, lengths: np.ndarray, batch_texts: int, seed: int) -> None:
        self.steps_per_epoch = len(lengths) // batch_texts
        self._lengths = lengths
        self._batch_texts = batch_texts
        self._seed = seed
        self._epochs: dict[int, list[np.ndarray]] = {}

    def positions(self, step: int) -> np.ndarray:
        """Positions of the batch of `step`; there are at least `batch_texts` of them to choose from."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self.epoch(epoch)[place]

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """All batches of an epoch, in order."""
        if epoch not in self._epochs:
            size, random = self._batch_texts, np.random.default_rng([self._seed, epoch])
            order = random.permutation(len(self._lengths))[: self.steps_per_epoch * size]
            bucket = BUCKET_BATCHES * size
            buckets = [order[start : start + bucket] for start in range(0, len(order), bucket)]
            ordered = [part[np.argsort(self._lengths[part], kind="stable")] for part in buckets]
            batches = [part[s : s + size] for part in ordered for s in range(0, len(part), size)]
            self._epochs = {epoch: [batches[i] for i in random.permutation(len(batches))]}
        return self._epochs[epoch]


class SnapshotDataset(IterableDataset[VectorBatch]):
    """Batches of one split of a snapshot, for a `DataLoader(dataset, batch_size=None, num_workers=...)`.

    The table is opened in the worker. Workers share the steps out among them, so the loader gives the batches in the
    same order for any number of workers.

    Args:
        reference: The snapshot.
        split: `train`, `dev` or `test`.
        batch_texts: Texts of a batch.
        seed: Of the shuffle.
        start: The step to begin at, to resume.
        steps: The step to end before.
    """

    def __init__(
        self, reference: SnapshotReference, split: str, batch_texts: int, seed: int, start: int, steps: int
    ) -> None:
        self._reference = reference
        self._split = split
        self._batch_texts = batch_texts
        self._seed = seed
        self._steps = range(start, steps)

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[VectorBatch]:
        worker = get_worker_info()
        first, every = (worker.id, worker.num_workers) if worker else (0, 1)
        snapshot = self._reference.open()
        rows = snapshot.rows(self._split)
        if len(rows) < self._batch_texts:
            raise ValueError(
                f"split {self._split!r} has {len(rows)} texts, fewer than one batch of {self._batch_texts}. Lower "
                "batch_texts, or take more texts."
            )
        plan = BatchPlan(snapshot.text_lengths()[rows], self._batch_texts, self._seed)
        steps = self._steps[first::every]

        def read(start: int) -> list[VectorBatch]:
            chunk = steps[start : start + READ_TOGETHER]
            return read_batches(snapshot, {step: rows[plan.positions(step)] for step in chunk})

        with ThreadPoolExecutor(1) as reader:  # reads on while the batches before are used
            ahead = None
            for start in range(0, len(steps), READ_TOGETHER):
                now, ahead = ahead, reader.submit(read, start)
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
    """Texts, as the student reads them, and what it should answer."""

    ids: list[str]
    texts: list[str]
    target_BD: Tensor


class TrainingData:
    """One split of a snapshot, as a student reads it. Nothing but lengths and row numbers stays in memory."""

    def __init__(self, snapshot: Snapshot, split: str, student: StudentSpec) -> None:
        self.snapshot = snapshot
        self.rows = snapshot.rows(split)
        self._prompts = [student.prompts[name] for name in student.query_prompts]
        self._lengths = snapshot.text_lengths()[self.rows]
        self._plans: dict[tuple[int, int], BatchPlan] = {}
        self._scales_D = torch.from_numpy(snapshot.layout.scales())

    def __len__(self) -> int:
        return len(self.rows)

    def plan(self, seed: int, epoch: int, batch_texts: int) -> list[np.ndarray]:
        """The batches of one epoch, as positions in this split."""
        return self._plan(seed, batch_texts).epoch(epoch)

    def positions(self, seed: int, step: int, batch_texts: int) -> np.ndarray:
        """Which texts of this split make the batch of `step`; the split has at least `batch_texts`."""
        return self._plan(seed, batch_texts).positions(step)

    def _plan(self, seed: int, batch_texts: int) -> BatchPlan:
        if (seed, batch_texts) not in self._plans:
            self._plans[seed, batch_texts] = BatchPlan(self._lengths, batch_texts, seed)
        return self._plans[seed, batch_texts]

    def read(self, positions: Sequence[int] | np.ndarray) -> Batch:
        """Texts, with a prompt before queries, and targets `[B, D]` float32 of unit norm."""
        (batch,) = read_batches(self.snapshot, {0: self.rows[positions]})
        named = zip(batch.ids, batch.roles, batch.texts, strict=True)
        texts = [self._prompt(text_id, role) + text for text_id, role, text in named]
        target_BD = torch.nn.functional.normalize(batch.vectors_BD.float() * self._scales_D, dim=1)
        return Batch(batch.ids, texts, target_BD)

    def _prompt(self, text_id: str, role: str) -> str:
        if role != "query" or not self._prompts:
            return ""
        return self._prompts[int(uniform("prompt", text_id) * len(self._prompts))]
