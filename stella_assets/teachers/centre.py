"""The centre of a teacher's vectors: how narrow the cone is that they lie in, and whether their mean is taken away.

Vectors of some models have a large part in common: those of e5 and of several APIs have cosines of 0.7 to 1. Joined as
they are, such a teacher adds nearly the same number to the cosine of every two texts, and little else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from stella_assets.core.errors import UserError
from stella_assets.teachers.joining import Centre
from stella_assets.teachers.kinds.base import Center
from stella_assets.teachers.measures import rounded
from stella_assets.teachers.snapshot_plan import BLOCK_ROWS, Texts

# Of more texts the mean would not change in the third digit, and reading vectors takes time.
MEAN_TEXTS = 262_144
"""Training texts that are measured at most; ids are hashes, so the first ones are a random sample."""
NARROW = 0.5
"""Mean cosine of two texts from which `center: auto` takes the mean away; docs/vectors.md has the measurement."""


def measure_centre(
    teacher: str, center: Center, texts: Texts, fetch: Callable[[list[str], list[str]], np.ndarray], *, joined: bool
) -> Centre:
    """Measure the training texts of a corpus.

    Args:
        teacher: The teacher's name, for messages.
        center: What the recipe says.
        texts: The corpus.
        fetch: Gives the teacher's vectors of ids and their roles.
        joined: Whether there are other teachers. The vectors of a single one stay as they are unless the recipe says
            otherwise: the student is then to give the teacher's own.

    Returns:
        The mean cosine, and the mean if it is to be taken away.

    Raises:
        UserError: The recipe asks for the mean of fewer than two texts.
    """
    count, squares, sum_D = 0, 0.0, np.zeros(0)
    for ids, roles in _training_texts(texts):
        block_ND = fetch(ids, roles).astype(np.float64)
        # Sums of float16 entries in float64 are exact, so the centre does not depend on the order of the texts.
        sum_D = block_ND.sum(axis=0) + (sum_D if len(sum_D) else 0)
        squares += float((block_ND**2).sum())
        count += len(ids)
    if count < 2:
        if center is True:
            raise UserError(
                f"teacher {teacher!r}: center is true, and the corpus has {count} training texts.", "Add texts."
            )
        return Centre(None)
    # Over ordered pairs i != j: sum of v_i . v_j = |sum of v_i|^2 - sum of |v_i|^2.
    mean_cosine = rounded(float((sum_D @ sum_D - squares) / (count * (count - 1))))
    wanted = joined and mean_cosine >= NARROW if center == "auto" else center
    return Centre(mean_cosine, (sum_D / count).astype(np.float32) if wanted else None)


def _training_texts(texts: Texts) -> Iterator[tuple[list[str], list[str]]]:
    """Ids and roles of training texts, in blocks."""
    rows = (
        (key, role)
        for batch in texts.scan(["id", "role", "split"])
        for key, role, split in zip(*(column.to_pylist() for column in batch.columns), strict=True)
        if split == "train"
    )
    first = islice(rows, MEAN_TEXTS)
    while block := list(islice(first, BLOCK_ROWS)):
        ids, roles = zip(*block, strict=True)
        yield list(ids), list(roles)
