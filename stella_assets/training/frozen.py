"""Pooled states of a frozen encoder: computed once, whatever reads them afterwards.

Shapes: N texts of a split, H hidden dimensions of the encoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stella_assets.core.progress import progress_bar
from stella_assets.students.dense.model import DenseStudent
from stella_assets.training.data import Batch, Reading, TrainingData
from stella_assets.training.plan import GROUP_COST

# One read of the store, and one block of the closed form's sums: large enough to hide the fixed cost of both.
BLOCK_TEXTS = 2048


def pooled_blocks(student: DenseStudent, data: TrainingData, name: str) -> Iterator[tuple[Batch, Tensor]]:
    """All texts of a split, a block at a time, in order: their targets, and their pooled states `[block, H]` float32.

    Args:
        student: Its encoder is read only.
        data: The split.
        name: Of the progress bar.

    Yields:
        The batch of a block, and pooled states `[N, H]` float32 in the order of its positions.
    """
    with progress_bar(len(data), name, "texts") as bar:
        for start in range(0, len(data), BLOCK_TEXTS):
            positions = np.arange(start, min(start + BLOCK_TEXTS, len(data)))
            # Groups are capped: a block is much larger than a batch, and so would be its activations.
            (batch,) = data.read([positions], Reading(GROUP_COST[student.device.type], max_texts=128))
            with torch.inference_mode():
                pooled_BH = torch.cat([student.pool(group) for group in batch.groups])
            yield batch, pooled_BH[batch.places]
            bar.update(len(positions))


def frozen_states(student: DenseStudent, data: TrainingData, path: Path) -> np.ndarray:
    """Pooled states of a split, in a memory-mapped file that a resumed run finds again.

    Args:
        student: Its encoder is read only.
        data: The split.
        path: Of the file.

    Returns:
        `[N, H]` float32, read-only, by position in the split.
    """
    if not path.exists():
        # A file of full size that is only half written looks whole, so it gets its name when it is.
        draft = path.with_suffix(".draft.npy")
        states_NH = np.lib.format.open_memmap(draft, mode="w+", dtype=np.float32, shape=(len(data), student.hidden))
        for batch, pooled_BH in pooled_blocks(student, data, "frozen encoder"):
            states_NH[batch.positions_B] = pooled_BH.cpu().numpy()
        states_NH.flush()  # before the rename, or the name could be on the disk and the numbers not
        draft.rename(path)
    return np.load(path, mmap_mode="r")
