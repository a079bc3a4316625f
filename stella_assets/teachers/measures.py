"""Measures of sets of vectors: anisotropy, effective rank, agreement. Shapes: S sampled texts, D and E dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEIGHBOURS = 10
COSINE_EDGES = np.linspace(-1, 1, 51).round(2)


@dataclass(frozen=True)
class VectorStats:
    """Statistics of one set of vectors.

    Attributes:
        rows: Vectors.
        dim: Dimensions.
        norm_mean: Mean norm; the store keeps unit vectors, so 1 but for float16.
        norm_std: Standard deviation of the norms.
        nan_rows: Rows with NaN or infinity.
        zero_rows: Rows of norm 0.
        mean_cosine: Mean cosine over all pairs, exact: the anisotropy (Ethayarajh, 2019). None for fewer than two rows.
        std_cosine: Spread of the cosines over pairs of the sample. None for a sample of fewer than three.
        effective_rank: Exponential of the entropy of the sample's normalised singular values (Roy and Vetterli, 2007).
        sampled_rows: Rows of the sample.
    """

    rows: int
    dim: int
    norm_mean: float
    norm_std: float
    nan_rows: int
    zero_rows: int
    mean_cosine: float | None
    std_cosine: float | None
    effective_rank: float | None
    sampled_rows: int


def rounded(value: float) -> float:
    """Six significant digits: sums in another order, as rows lie elsewhere, give the same figure."""
    return float(f"{value:.6g}")


class Accumulator:
    """Gathers norms and sums of groups of rows, block by block; in memory are a few rows of numbers a group.

    Sums of float16 entries in float64 are exact for up to 2^29 unit vectors, so mean cosines do not depend on order.
    """

    def __init__(self, groups: int, dim: int) -> None:
        self.dim = dim
        self.sums_GD = np.zeros((groups, dim))
        self.squares_D = np.zeros(dim)
        self.least_D = np.full(dim, np.inf)
        self.most_D = np.full(dim, -np.inf)
        self.rows_G = np.zeros(groups, dtype=np.int64)
        self.nan_G = np.zeros(groups, dtype=np.int64)
        self.zero_G = np.zeros(groups, dtype=np.int64)
        self.norms_G = np.zeros(groups)
        self.norm_squares_G = np.zeros(groups)

    def add(self, block_ND: np.ndarray, groups_N: np.ndarray) -> np.ndarray:
        """Take in a block `[n, dim]` with the group of each row, and give the norms `[n]`; rows with NaN have NaN."""
        block = block_ND.astype(np.float32)
        squares = np.einsum("nd,nd->n", block, block, dtype=np.float64)
        finite = np.isfinite(squares)
        if not finite.all():
            block, squares = np.where(finite[:, None], block, 0), np.where(finite, squares, 0)
        count = len(self.rows_G)
        for group in np.unique(groups_N):
            self.sums_GD[group] += block[groups_N == group].sum(axis=0, dtype=np.float64)
        self.squares_D += np.einsum("nd,nd->d", block, block, dtype=np.float64)
        self.least_D = np.minimum(self.least_D, block.min(axis=0, initial=np.inf))
        self.most_D = np.maximum(self.most_D, block.max(axis=0, initial=-np.inf))
        norms = np.sqrt(squares)
        self.rows_G += np.bincount(groups_N, minlength=count)
        self.nan_G += np.bincount(groups_N[~finite], minlength=count)
        self.zero_G += np.bincount(groups_N[finite & (squares == 0)], minlength=count)
        self.norms_G += np.bincount(groups_N, weights=norms, minlength=count)
        self.norm_squares_G += np.bincount(groups_N, weights=squares, minlength=count)
        return np.where(finite, norms, np.nan)

    def result(self, groups: slice | int, sample_SD: np.ndarray) -> VectorStats:
        """Statistics of one group, or of several together; those that need pairs are of a sample `[s, dim]`."""
        chosen = np.atleast_1d(np.arange(len(self.rows_G))[groups])
        rows, nan, zero = (int(counts[chosen].sum()) for counts in (self.rows_G, self.nan_G, self.zero_G))
        total, squares = float(self.norms_G[chosen].sum()), float(self.norm_squares_G[chosen].sum())
        counted = max(1, rows - nan)
        mean, usable = total / counted, rows - nan - zero
        sum_D = self.sums_GD[chosen].sum(axis=0)
        pairs = usable * (usable - 1)
        return VectorStats(
            rows=rows,
            dim=self.dim,
            norm_mean=rounded(mean),
            norm_std=rounded(float(np.sqrt(max(0.0, squares / counted - mean**2)))),
            nan_rows=nan,
            zero_rows=zero,
            mean_cosine=rounded(float((sum_D @ sum_D - squares) / pairs)) if pairs else None,
            std_cosine=cosine_spread(sample_SD),
            effective_rank=effective_rank(sample_SD),
            sampled_rows=len(sample_SD),
        )


def pair_cosines(sample_SD: np.ndarray) -> np.ndarray:
    """Cosines of all pairs of a sample of unit vectors, each pair once."""
    return (sample_SD @ sample_SD.T)[np.triu_indices(len(sample_SD), 1)]


def cosine_spread(sample_SD: np.ndarray) -> float | None:
    """Standard deviation of the cosines of all pairs of a sample of unit vectors."""
    if len(sample_SD) < 3:
        return None
    return rounded(float(pair_cosines(sample_SD).std()))


def cosine_histogram(sample_SD: np.ndarray) -> np.ndarray:
    """How many pairs of a sample of unit vectors have a cosine between two of `COSINE_EDGES`."""
    return np.histogram(np.clip(pair_cosines(sample_SD), -1, 1), COSINE_EDGES)[0]


def effective_rank(sample_SD: np.ndarray) -> float | None:
    """Exponential of the entropy of the normalised singular values of the centred sample."""
    if len(sample_SD) < 3:
        return None
    centred = (sample_SD - sample_SD.mean(axis=0)).astype(np.float64)
    gram = centred @ centred.T if len(centred) <= centred.shape[1] else centred.T @ centred
    squares = np.linalg.eigvalsh(gram)
    values = np.sqrt(squares[squares > squares.max() * 1e-12])
    share = values / values.sum()
    return rounded(float(np.exp(-(share * np.log(share)).sum())))


def linear_cka(a_SD: np.ndarray, b_SE: np.ndarray) -> float:
    """Linear centred kernel alignment of two sets of vectors of the same texts (Kornblith et al., 2019, eq. 3).

    Worked out from the S x S Gram matrices, as dimensions may be many more than texts.
    """
    grams = []
    for vectors in (a_SD, b_SE):
        centred = (vectors - vectors.mean(axis=0)).astype(np.float64)
        grams.append(centred @ centred.T)
    a_SS, b_SS = grams
    return rounded(float((a_SS * b_SS).sum() / (np.linalg.norm(a_SS) * np.linalg.norm(b_SS))))


def nearest(vectors_SD: np.ndarray, among_TD: np.ndarray, itself_S: np.ndarray, neighbours: int) -> np.ndarray:
    """Positions `[S, neighbours]` of the nearest unit vectors by cosine, without the vector itself."""
    cosines_ST = vectors_SD @ among_TD.T
    cosines_ST[np.arange(len(vectors_SD)), itself_S] = -np.inf
    return np.argpartition(-cosines_ST, neighbours - 1, axis=1)[:, :neighbours]


def neighbour_overlap(a_SD: np.ndarray, b_SE: np.ndarray, neighbours: int = NEIGHBOURS) -> float:
    """Mean share of the nearest neighbours by cosine that two sets of unit vectors have in common."""
    itself = np.arange(len(a_SD))
    both = zip(nearest(a_SD, a_SD, itself, neighbours), nearest(b_SE, b_SE, itself, neighbours), strict=True)
    return rounded(float(np.mean([len(np.intersect1d(x, y)) for x, y in both]) / neighbours))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to unit norm, float32; rows of zeros stay."""
    block = vectors.astype(np.float32)
    return block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12)
