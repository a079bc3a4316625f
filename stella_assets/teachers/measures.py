"""Measures of sets of vectors: anisotropy, effective rank, agreement. Shapes: S sampled texts, D and E dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEIGHBOURS = 10
# 50 bins of width 0.04; rounded, as `linspace` leaves last bits that would show in tables.
COSINE_EDGES = np.linspace(-1, 1, 51).round(2)


@dataclass(frozen=True)
class VectorStats:
    """Statistics of one set of vectors.

    Attributes:
        rows: Vectors.
        dim: Dimensions.
        norm_mean: Mean norm; the store keeps unit vectors, so 1 up to rounding to float16.
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
    """Six significant digits: sums in another order of rows give the same figure."""
    return float(f"{value:.6g}")


class Accumulator:
    """Gathers norms and sums of groups of rows, block by block; in memory are a few rows of numbers per group.

    Sums of float16 entries in float64 are exact for up to 2^29 unit vectors, so mean cosines do not depend on order.

    Args:
        groups: How many groups there are; rows name theirs by number. G in the shapes of attributes.
        dim: Dimensions of a vector.
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
        """Add a block `[n, dim]` with the group of each row, and return the norms `[n]`; rows with NaN have NaN."""
        block = block_ND.astype(np.float32)
        # float16 would overflow or round squares; NaN and infinity survive the sum and mark their row.
        squares = np.einsum("nd,nd->n", block, block, dtype=np.float64)
        finite = np.isfinite(squares)
        if not finite.all():
            # One broken row must not make the sums of its whole source NaN; it is counted instead.
            block, squares = np.where(finite[:, None], block, 0), np.where(finite, squares, 0)
        count = len(self.rows_G)
        # In float64, where these sums are exact.
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
        """Statistics of one group, or of several together.

        Args:
            groups: Which of them.
            sample_SD: Unit vectors of a sample of their rows, for what needs pairs of texts.
        """
        chosen = np.atleast_1d(np.arange(len(self.rows_G))[groups])
        rows, nan, zero = (int(counts[chosen].sum()) for counts in (self.rows_G, self.nan_G, self.zero_G))
        total, squares = float(self.norms_G[chosen].sum()), float(self.norm_squares_G[chosen].sum())
        # Rows of zeros count for norms but have no cosine.
        counted = max(1, rows - nan)
        mean, usable = total / counted, rows - nan - zero
        sum_D = self.sums_GD[chosen].sum(axis=0)
        # Over ordered pairs i != j: sum of v_i . v_j = |sum of v_i|^2 - sum of |v_i|^2, so no pair is ever formed.
        pairs = usable * (usable - 1)
        return VectorStats(
            rows=rows,
            dim=self.dim,
            norm_mean=rounded(mean),
            # E[x^2] - E[x]^2 can be just below 0 for norms that are all 1.
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
    """Exponential of the entropy of the normalised singular values of the centred sample.

    Args:
        sample_SD: Vectors.

    Returns:
        Between 1 and min(S - 1, D); None for fewer than three rows.

    References:
        Roy and Vetterli, 2007, The effective rank: a measure of effective dimensionality. They do not centre; here the
        mean, which `mean_cosine` shows, would hide the other directions.
    """
    if len(sample_SD) < 3:
        return None
    centred = (sample_SD - sample_SD.mean(axis=0)).astype(np.float64)
    # The smaller Gram matrix: both have the same eigenvalues except for zeros.
    gram = centred @ centred.T if len(centred) <= centred.shape[1] else centred.T @ centred
    squares = np.linalg.eigvalsh(gram)
    # Eigenvalues that should be 0 come out as +-1e-16 of the largest; the logarithm needs positive ones.
    values = np.sqrt(squares[squares > squares.max() * 1e-12])
    share = values / values.sum()
    return rounded(float(np.exp(-(share * np.log(share)).sum())))


def linear_cka(a_SD: np.ndarray, b_SE: np.ndarray) -> float:
    """Linear centred kernel alignment of two sets of vectors of the same texts.

    Computed from the S x S Gram matrices, as dimensions may be many more than texts.

    Args:
        a_SD: Vectors; row i is of text i.
        b_SE: Other vectors of the same texts, of any number of dimensions.

    Returns:
        Between 0 and 1; 1 where one set is the other, rotated and scaled. NaN where all vectors of a set are equal.

    References:
        Kornblith et al., 2019, Similarity of neural network representations revisited, arXiv 1905.00414, section 3.
    """
    grams = []
    for vectors in (a_SD, b_SE):
        centred = (vectors - vectors.mean(axis=0)).astype(np.float64)
        grams.append(centred @ centred.T)
    a_SS, b_SS = grams
    # HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)); the factors 1 / (S - 1)^2 cancel.
    return rounded(float((a_SS * b_SS).sum() / (np.linalg.norm(a_SS) * np.linalg.norm(b_SS))))


def nearest(vectors_SD: np.ndarray, among_TD: np.ndarray, itself_S: np.ndarray, neighbours: int) -> np.ndarray:
    """Positions of the nearest unit vectors by cosine, without the vector itself.

    Args:
        vectors_SD: Unit vectors to find neighbours of.
        among_TD: Unit vectors to find them among.
        itself_S: Where in `among_TD` each vector is.
        neighbours: How many; at most T - 1.

    Returns:
        `[S, neighbours]` positions in `among_TD`, in no order.
    """
    cosines_ST = vectors_SD @ among_TD.T
    cosines_ST[np.arange(len(vectors_SD)), itself_S] = -np.inf
    # Overlaps are of sets, so the order within the neighbours needs no sort.
    return np.argpartition(-cosines_ST, neighbours - 1, axis=1)[:, :neighbours]


def neighbour_overlap(a_SD: np.ndarray, b_SE: np.ndarray, neighbours: int = NEIGHBOURS) -> float:
    """Mean share of the nearest neighbours by cosine that two sets of unit vectors have in common."""
    itself = np.arange(len(a_SD))
    both = zip(nearest(a_SD, a_SD, itself, neighbours), nearest(b_SE, b_SE, itself, neighbours), strict=True)
    return rounded(float(np.mean([len(np.intersect1d(x, y)) for x, y in both]) / neighbours))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to unit norm, float32; rows of zeros stay."""
    block = vectors.astype(np.float32)
    # The floor only keeps 0 / 0 from giving NaN.
    return block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12)
