"""Batches of texts with their target vectors, in an order that depends on the seed and the step alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stella_assets.corpus.text import uniform
from stella_assets.recipe import Student as StudentSpec
from storage.snapshot import Snapshot

BUCKET_BATCHES = 16
"""Batches that are sorted by length together: less padding, and a batch still mixes most of the corpus."""


@dataclass(frozen=True)
class Batch:
    """Texts, as the student reads them, and what it should answer."""

    ids: list[str]
    texts: list[str]
    target_BD: Tensor


class TrainingData:
    """One split of a snapshot. Nothing but lengths and row numbers stays in memory."""

    def __init__(self, snapshot: Snapshot, split: str, student: StudentSpec) -> None:
        self.snapshot = snapshot
        self.rows = snapshot.rows(split)
        self._prompts = [student.prompts[name] for name in student.query_prompts]
        self._lengths = snapshot.text_lengths()[self.rows]
        self._plans: dict[tuple[int, int, int], list[np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def plan(self, seed: int, epoch: int, batch_texts: int) -> list[np.ndarray]:
        """The batches of one epoch, as positions in this split: shuffled, and of like length within a batch."""
        key = (seed, epoch, batch_texts)
        if key not in self._plans:
            random = np.random.default_rng([seed, epoch])
            order = random.permutation(len(self))[: len(self) // batch_texts * batch_texts]
            bucket = BUCKET_BATCHES * batch_texts
            buckets = [order[start : start + bucket] for start in range(0, len(order), bucket)]
            ordered = [part[np.argsort(self._lengths[part], kind="stable")] for part in buckets]
            batches = [part[s : s + batch_texts] for part in ordered for s in range(0, len(part), batch_texts)]
            self._plans = {key: [batches[i] for i in random.permutation(len(batches))]}
        return self._plans[key]

    def positions(self, seed: int, step: int, batch_texts: int) -> np.ndarray:
        """Which texts of this split make the batch of `step`; the split has at least `batch_texts`."""
        epoch, place = divmod(step, len(self) // batch_texts)
        return self.plan(seed, epoch, batch_texts)[place]

    def read(self, positions: Sequence[int] | np.ndarray) -> Batch:
        """Texts, with a prompt before queries, and targets `[B, D]` float32 of unit norm."""
        columns = self.snapshot.take(self.rows[positions], ["id", "text", "role", "vector"])
        texts = [
            self._prompt(text_id, role) + text
            for text_id, role, text in zip(columns["id"], columns["role"], columns["text"], strict=True)
        ]
        target = torch.nn.functional.normalize(torch.from_numpy(columns["vector"].astype(np.float32)), dim=1)
        return Batch(columns["id"], texts, target)

    def _prompt(self, text_id: str, role: str) -> str:
        if role != "query" or not self._prompts:
            return ""
        return self._prompts[int(uniform("prompt", text_id) * len(self._prompts))]
