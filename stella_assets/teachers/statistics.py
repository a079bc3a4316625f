"""Statistics of teacher vectors: norms, anisotropy, effective rank, and how far teachers agree."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from stella_assets.corpus.build import corpus_step, read_texts
from stella_assets.corpus.text import uniform
from stella_assets.manifest import Check
from stella_assets.recipe import Recipe
from stella_assets.step import Result, Step, Workbench
from stella_assets.teachers.concatenate import concatenation_step, open_snapshot
from stella_assets.teachers.encode import TeacherVectors, teacher_step
from storage.statistics import TEACHER_AGREEMENT, VECTOR_STATS, write_table

CODE_VERSION = "1"
STATS_FILE = "vector_stats.parquet"
AGREEMENT_FILE = "teacher_agreement.parquet"
SAMPLE_ROWS = 2048
NEIGHBOURS = 10
BLOCK_ROWS = 8192


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
        mean_cosine: Mean cosine over all pairs, exact: the anisotropy (Ethayarajh, 2019).
        std_cosine: Spread of the cosines over pairs of the sample.
        effective_rank: Exponential of the entropy of the sample's normalised singular values (Roy and Vetterli, 2007).
        sampled_rows: Rows of the sample.
    """

    rows: int
    dim: int
    norm_mean: float
    norm_std: float
    nan_rows: int
    zero_rows: int
    mean_cosine: float
    std_cosine: float
    effective_rank: float
    sampled_rows: int


class StatsAccumulator:
    """Gathers statistics block by block in one pass; memory is one sum vector and a sample."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._sum_D = np.zeros(dim)
        self._rows = self._nan = self._zero = 0
        self._norm_sum = self._norm_square = 0.0

    def add(self, block_ND: np.ndarray) -> None:
        """Take in a block `[n, dim]`."""
        block = block_ND.astype(np.float32)
        finite = np.isfinite(block).all(axis=1)
        norms = np.linalg.norm(block[finite], axis=1).astype(np.float64)
        self._rows += len(block)
        self._nan += int((~finite).sum())
        self._zero += int((norms == 0).sum())
        self._norm_sum += float(norms.sum())
        self._norm_square += float((norms**2).sum())
        unit = block[finite][norms > 0] / norms[norms > 0, None]
        self._sum_D += unit.sum(axis=0, dtype=np.float64)

    def result(self, sample_SD: np.ndarray) -> VectorStats:
        """The statistics, with those that need pairs taken from a sample `[s, dim]` of unit vectors."""
        counted = max(1, self._rows - self._nan)
        usable = counted - self._zero
        mean = self._norm_sum / counted
        pairs = usable * (usable - 1)
        cosines = (sample_SD @ sample_SD.T)[np.triu_indices(len(sample_SD), 1)]
        return VectorStats(
            rows=self._rows,
            dim=self.dim,
            norm_mean=mean,
            norm_std=float(np.sqrt(max(0.0, self._norm_square / counted - mean**2))),
            nan_rows=self._nan,
            zero_rows=self._zero,
            mean_cosine=float((self._sum_D @ self._sum_D - usable) / pairs) if pairs else float("nan"),
            std_cosine=float(cosines.std()) if cosines.size else float("nan"),
            effective_rank=effective_rank(sample_SD),
            sampled_rows=len(sample_SD),
        )


def effective_rank(sample_SD: np.ndarray) -> float:
    """Exponential of the entropy of the normalised singular values of the centred sample."""
    values = np.linalg.svd(sample_SD - sample_SD.mean(axis=0), compute_uv=False)
    share = values[values > 0] / values.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def linear_cka(a_SD: np.ndarray, b_SE: np.ndarray) -> float:
    """Linear centred kernel alignment of two sets of vectors of the same texts (Kornblith et al., 2019, eq. 3)."""
    a, b = a_SD - a_SD.mean(axis=0), b_SE - b_SE.mean(axis=0)
    cross = np.linalg.norm(b.T @ a) ** 2
    return float(cross / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)))


def neighbour_overlap(a_SD: np.ndarray, b_SE: np.ndarray, neighbours: int = NEIGHBOURS) -> float:
    """Mean share of the nearest neighbours by cosine that two sets of unit vectors have in common."""
    nearest = []
    for vectors in (a_SD, b_SE):
        cosines = vectors @ vectors.T
        np.fill_diagonal(cosines, -np.inf)
        nearest.append(np.argpartition(-cosines, neighbours, axis=1)[:, :neighbours])
    shared = [len(np.intersect1d(x, y)) for x, y in zip(*nearest, strict=True)]
    return float(np.mean(shared) / neighbours)


def statistics_step(recipe: Recipe) -> Step:
    """The step that makes `vector_stats`."""
    return Step(
        recipe=recipe.name,
        name="vector_stats",
        code_version=CODE_VERSION,
        settings={"sample_rows": SAMPLE_ROWS, "neighbours": NEIGHBOURS},
        needs=(
            corpus_step(recipe),
            *(teacher_step(recipe, teacher) for teacher in recipe.teachers),
            concatenation_step(recipe),
        ),
        build=lambda bench: _measure(recipe, bench),
    )


def _measure(recipe: Recipe, bench: Workbench) -> Result:
    texts = read_texts(bench.inputs["corpus"], ["id", "role"]).to_pydict()
    ids, roles = texts["id"], texts["role"]
    sample = np.argsort([uniform("statistics", text) for text in ids], kind="stable")[:SAMPLE_ROWS]
    rows, samples = [], {}
    for teacher in recipe.teachers:
        vectors = TeacherVectors.open(teacher, bench.inputs[f"teacher_vectors/{teacher.name}"], bench.home)
        gathered = StatsAccumulator(vectors.dim)
        for start in range(0, len(ids), BLOCK_ROWS):
            gathered.add(vectors.fetch(ids[start : start + BLOCK_ROWS], roles[start : start + BLOCK_ROWS]))
        samples[teacher.name] = _unit(vectors.fetch([ids[i] for i in sample], [roles[i] for i in sample]))
        rows.append({"vectors": teacher.name, "kind": "teacher", **asdict(gathered.result(samples[teacher.name]))})
    snapshot = open_snapshot(recipe, bench.inputs["concatenated_vectors"], bench.home)
    gathered = StatsAccumulator(snapshot.layout.dim)
    for block in snapshot.vectors(BLOCK_ROWS):
        gathered.add(block)
    samples["concatenation"] = _unit(
        snapshot.take(np.sort(sample), ["vector"])["vector"][np.argsort(np.argsort(sample))]
    )
    rows.append(
        {"vectors": "concatenation", "kind": "concatenation", **asdict(gathered.result(samples["concatenation"]))}
    )
    write_table(bench.folder / STATS_FILE, VECTOR_STATS, rows)
    agreement = _agreement(samples)
    write_table(bench.folder / AGREEMENT_FILE, TEACHER_AGREEMENT, agreement)
    bad = sum(row["nan_rows"] + row["zero_rows"] for row in rows)
    return Result(
        facts={"vectors": rows, "agreement": agreement},
        checks=(Check("no_nan_or_zero_rows", bad == 0, f"{bad} rows hold NaN or only zeros"),),
    )


def _agreement(samples: dict[str, np.ndarray]) -> list[dict[str, object]]:
    names = list(samples)
    return [
        {
            "a": a,
            "b": b,
            "linear_cka": linear_cka(samples[a], samples[b]),
            "neighbour_overlap": neighbour_overlap(samples[a], samples[b], min(NEIGHBOURS, len(samples[a]) - 1)),
            "neighbours": NEIGHBOURS,
            "sampled_rows": len(samples[a]),
        }
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    ]


def _unit(vectors: np.ndarray) -> np.ndarray:
    block = vectors.astype(np.float32)
    return block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12)
