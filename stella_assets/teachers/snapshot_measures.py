"""Measures of a snapshot in one pass: norms, anisotropy and effective rank by teacher and source, and agreement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from stella_assets.storage.codecs import block_rows, vectors_to_numpy
from stella_assets.teachers.joining import centred
from stella_assets.teachers.measures import (
    COSINE_EDGES,
    NEIGHBOURS,
    Accumulator,
    VectorStats,
    cosine_histogram,
    linear_cka,
    neighbour_overlap,
    rounded,
    unit,
)
from stella_assets.teachers.snapshot import VECTOR, Layout, Snapshot

ALL = "*"
"""Stands for all sources."""
CONCATENATION = "concatenation"
# What needs pairs takes S x S matrices: 32 MiB in float64, and two of them for CKA.
SAMPLE_ROWS = 2048
# Bounds the effective rank of a source by 255: compare it between sources, not with that of all.
SOURCE_SAMPLE_ROWS = 256


def measure_snapshot(
    snapshot: Snapshot, on_rows: Callable[[int], None] = lambda _rows: None
) -> dict[str, list[dict[str, Any]]]:
    """Statistics of a snapshot in one streaming pass over its vectors, and a sample of texts for what needs pairs.

    Args:
        snapshot: What to measure.
        on_rows: Called with a number of rows as they are read.

    Returns:
        Rows of the tables `stats`, `dimensions`, `agreement` and `similarities`. Source `*` stands for all sources,
        teacher `concatenation` for the weighted concatenation of all.
    """
    sources, groups_N = _sources(snapshot)
    accumulators = _accumulate(snapshot, len(sources), groups_N, on_rows)
    # `groups_N` is in physical order, the sample is of row numbers.
    sampled, samples = _sample(snapshot, groups_N[snapshot.order])
    sample_groups = groups_N[snapshot.order][sampled]
    stats = []
    for teacher, gathered in accumulators.items():
        # The first SAMPLE_ROWS are of all sources alike; the rest over-represents small sources.
        in_first = samples[teacher][: min(SAMPLE_ROWS, len(snapshot))]
        is_centred = any(_is_centred(snapshot.layout, name) for name in _parts_of(teacher, snapshot.layout))
        stats.append(_row(teacher, ALL, is_centred, gathered.result(slice(None), in_first)))
        stats += [
            _row(
                teacher,
                source,
                is_centred,
                gathered.result(g, samples[teacher][sample_groups == g][:SOURCE_SAMPLE_ROWS]),
            )
            for g, source in enumerate(sources)
        ]
    dimensions = [
        row for name in snapshot.layout.teachers for row in _dimension_rows(name, accumulators[name], len(snapshot))
    ]
    return {
        "stats": stats,
        "dimensions": dimensions,
        "agreement": _agreement(samples),
        "similarities": [row for name, sample in samples.items() for row in _similarities(name, sample[:SAMPLE_ROWS])],
    }


def _row(teacher: str, source: str, is_centred: bool, stats: VectorStats) -> dict[str, Any]:
    kind = CONCATENATION if teacher == CONCATENATION else "teacher"
    return {"teacher": teacher, "kind": kind, "source": source, "centred": is_centred, **asdict(stats)}


def _is_centred(layout: Layout, teacher: str) -> bool:
    return layout.mean_of(teacher) is not None


def _parts_of(name: str, layout: Layout) -> tuple[str, ...]:
    """The teachers of a row of the statistics."""
    return layout.teachers if name == CONCATENATION else (name,)


def _sources(snapshot: Snapshot) -> tuple[list[str], np.ndarray]:
    """The names of the sources, and the number of each row's source, in the order in which rows lie."""
    names: dict[str, int] = {}
    numbers = [
        [names.setdefault(source, len(names)) for source in batch.column(0).to_pylist()]
        for batch in snapshot.scan(["source"], 65_536)
    ]
    ordered = sorted(names)
    # Rank of each name: numbers by first appearance would depend on physical order.
    renumbered = np.argsort(np.argsort(list(names)))
    return ordered, renumbered[np.array([n for part in numbers for n in part], dtype=np.int64)]


def _accumulate(
    snapshot: Snapshot, sources: int, groups_N: np.ndarray, on_rows: Callable[[int], None]
) -> dict[str, Accumulator]:
    layout = snapshot.layout
    accumulators = {name: Accumulator(sources, dim) for name, dim in zip(layout.teachers, layout.dims, strict=True)}
    # Centred vectors are other vectors, whose sums do not follow from those of the stored ones.
    around = {name: Accumulator(sources, layout.dim_of(name)) for name in layout.teachers if _is_centred(layout, name)}
    joined = Accumulator(sources, layout.dim)
    weights = np.array(layout.weights) / np.linalg.norm(layout.weights)
    done = 0
    columns = [VECTOR + name for name in layout.teachers]
    for batch in snapshot.scan(columns, block_rows(layout.dim)):
        groups = groups_N[done : done + len(batch)]
        squares = np.zeros(len(batch))
        for number, (name, gathered) in enumerate(accumulators.items()):
            block = vectors_to_numpy(batch.column(number))
            norms = gathered.add(block, groups)
            if name in around:
                norms = around[name].add(centred(block, layout.mean_of(name)), groups)
            # |concat(w_k t_k)|^2 = sum of w_k^2 |t_k|^2: the concatenation itself is never formed.
            squares += (weights[number] * norms) ** 2
        # A row that is broken in one teacher is broken in the concatenation.
        broken = np.isnan(squares)
        joined.nan_G += np.bincount(groups[broken], minlength=sources)
        squares[broken] = 0
        joined.norms_G += np.bincount(groups, weights=np.sqrt(squares), minlength=sources)
        joined.norm_squares_G += np.bincount(groups, weights=squares, minlength=sources)
        joined.zero_G += np.bincount(groups[~broken & (squares == 0)], minlength=sources)
        done += len(batch)
        on_rows(len(batch))
    joined.rows_G += next(iter(accumulators.values())).rows_G
    # The sum of concatenations is the concatenation of sums.
    parts = {**accumulators, **around}
    joined.sums_GD = np.concatenate(
        [weight * parts[name].sums_GD for name, weight in zip(layout.teachers, weights, strict=True)], axis=1
    )
    return {**accumulators, CONCATENATION: joined}


def _sample(snapshot: Snapshot, groups: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows of a sample that depends on ids alone, first of all sources, then of each, and unit vectors by teacher."""
    lots = snapshot.random_order
    # Of each row, its place among the lots of its source.
    place = np.empty(len(lots), dtype=np.int64)
    for group in np.unique(groups):
        of_group = lots[groups[lots] == group]
        place[of_group] = np.arange(len(of_group))
    first = np.zeros(len(lots), dtype=bool)
    first[lots[:SAMPLE_ROWS]] = True
    # With many sources each gets fewer, so that all of them add at most 2 SAMPLE_ROWS rows.
    of_each = min(SOURCE_SAMPLE_ROWS, 2 * SAMPLE_ROWS // (int(groups.max(initial=0)) + 1))
    rows = np.concatenate([lots[:SAMPLE_ROWS], lots[(place[lots] < of_each) & ~first[lots]]])
    samples = {teacher: unit(snapshot.vectors(rows, [teacher])) for teacher in snapshot.layout.teachers}
    samples[CONCATENATION] = snapshot.layout.targets(np.concatenate(list(samples.values()), axis=1))
    return rows, samples


def _dimension_rows(teacher: str, gathered: Accumulator, rows: int) -> list[dict[str, Any]]:
    mean_D = gathered.sums_GD.sum(axis=0) / rows
    # E[x^2] - E[x]^2 can be just below 0 for a constant dimension.
    std_D = np.sqrt(np.maximum(0, gathered.squares_D / rows - mean_D**2))
    columns = zip(mean_D, std_D, gathered.least_D, gathered.most_D, strict=True)
    return [
        {
            "teacher": teacher,
            "dimension": dimension,
            "mean": rounded(mean),
            "std": rounded(std),
            "min": rounded(least),
            "max": rounded(most),
        }
        for dimension, (mean, std, least, most) in enumerate(columns)
    ]


def _similarities(teacher: str, sample_SD: np.ndarray) -> list[dict[str, Any]]:
    bins = zip(COSINE_EDGES[:-1].tolist(), COSINE_EDGES[1:].tolist(), cosine_histogram(sample_SD).tolist(), strict=True)
    return [{"teacher": teacher, "low": low, "high": high, "pairs": pairs} for low, high, pairs in bins]


def _agreement(samples: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    sampled = {name: sample[:SAMPLE_ROWS] for name, sample in samples.items()}
    names = list(sampled)
    return [
        {
            "a": a,
            "b": b,
            "linear_cka": linear_cka(sampled[a], sampled[b]),
            "neighbour_overlap": neighbour_overlap(sampled[a], sampled[b], min(NEIGHBOURS, len(sampled[a]) - 1)),
            "neighbours": NEIGHBOURS,
            "sampled_rows": len(sampled[a]),
        }
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        if len(sampled[a]) > 1
    ]
