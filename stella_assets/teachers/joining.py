"""How the vectors of several teachers become one target: centred where a teacher needs it, weighted, side by side.

`t = norm(concat(w_1 t_1, w_2 t_2, ...))` with unit vectors t_k (arXiv 2412.19048, section 2.1). Of a teacher with the
mean m_k, t_k is `norm(norm(t_k) - m_k)`: of unit norm again, so that the cosine of two targets remains the mean of the
teachers' cosines, weighted with w_k squared, and weights mean the same for every teacher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stella_assets.teachers.measures import unit


@dataclass(frozen=True)
class Centre:
    """What is known of the middle of a teacher's vectors.

    Attributes:
        mean_cosine: Of two training texts: the anisotropy (Ethayarajh, 2019). None for fewer than two.
        mean_D: Mean of the unit vectors, float32, where it is taken away; else None.
    """

    mean_cosine: float | None
    mean_D: np.ndarray | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain values; a float32 is read back as it was."""
        return {"mean_cosine": self.mean_cosine, "mean": None if self.mean_D is None else self.mean_D.tolist()}

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Centre:
        """From what `to_json` gave."""
        mean = written["mean"]
        return cls(written["mean_cosine"], None if mean is None else np.array(mean, dtype=np.float32))


def centred(vectors_ND: np.ndarray, mean_D: np.ndarray | None) -> np.ndarray:
    """Unit vectors `[N, D]` float32; around the mean where there is one.

    Args:
        vectors_ND: Of any float type and norm.
        mean_D: Mean of the teacher's unit vectors; None for vectors as they are.
    """
    # Stored vectors are of unit norm up to float16; without this the error would change the weights a little.
    units = unit(vectors_ND)
    return units if mean_D is None else unit(units - mean_D)


def concatenate(
    vectors: Sequence[np.ndarray], weights: Sequence[float], means: Sequence[np.ndarray | None] | None = None
) -> np.ndarray:
    """Centre, weight and concatenate the vectors of several teachers, and normalise.

    Args:
        vectors: One block `[n, dim_k]` per teacher, of any float type.
        weights: One per teacher, above 0.
        means: One per teacher: what is taken from its unit vectors, or None; none are centred when left out.

    Returns:
        `[n, sum of dim_k]` float32, rows of unit norm.

    References:
        arXiv 2412.19048, section 2.1. Mu and Viswanath 2018, All-but-the-top, arXiv 1702.01417: the mean vector that
        all texts share says nothing about any of them.

    Example:
        >>> concatenate([np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])], [1.0, 1.0]).round(3)
        array([[0.707, 0.   , 0.   , 0.707]], dtype=float32)
    """
    means = [None] * len(vectors) if means is None else means
    parts = [w * centred(block, mean) for block, w, mean in zip(vectors, weights, means, strict=True)]
    return unit(np.concatenate(parts, axis=1))
