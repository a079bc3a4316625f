"""Drift: how far a snapshot has moved from the one before it."""

from __future__ import annotations

from typing import Any

import numpy as np

from stella_assets.storage.codecs import block_rows, vectors_to_numpy
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.measures import NEIGHBOURS, linear_cka, nearest, rounded, unit
from stella_assets.teachers.snapshot import VECTOR, Snapshot, snapshot_tags

# The matrix of cosines takes 16 MiB in float32.
SAMPLE_ROWS = 2048
ROLES = 65_536
"""Rows of a block of roles."""


def previous_snapshot(workspace: Workspace, recipe: str, tag: str) -> tuple[str, Snapshot] | None:
    """The recipe's last snapshot before this one, with its tag; None if no tag names one.

    Raises:
        ValueError: The recipe has no snapshot `tag`.
    """
    tags = list(snapshot_tags(workspace, recipe))
    place = tags.index(tag)
    return (tags[place - 1], Snapshot.open(workspace, recipe, tags[place - 1])) if place else None


def snapshot_drift(before: Snapshot, now: Snapshot) -> list[dict[str, Any]]:
    """How far the vectors of each teacher that both snapshots have moved.

    `mean_shift` is the distance of the mean vectors; None when the dimensions differ. `linear_cka` compares the vectors
    of texts that both have, 1 when a teacher stayed the same. `changed_neighbours` is the share of a text's nearest
    neighbours, within a sample of its snapshot, that are not its neighbours in the other: it sees new texts, too.

    Args:
        before: The older snapshot.
        now: The newer one.

    Returns:
        One row per teacher that both have, in the order of `now`. `linear_cka` and `changed_neighbours` are None where
        the samples have fewer than three texts in common.

    References:
        Kornblith et al., 2019, arXiv 1905.00414 (linear CKA).
    """
    added, removed = np.setdiff1d(now.keys, before.keys), np.setdiff1d(before.keys, now.keys)
    # In another role a text has another prompt, and so another vector.
    moved = _changed_roles(before, now)
    new, gone = np.union1d(added, moved), np.union1d(removed, moved)
    rows = []
    for teacher in now.layout.teachers:
        if teacher not in before.layout.teachers:
            continue
        rows.append(
            {
                "teacher": teacher,
                "rows": len(now),
                "rows_added": len(added),
                "rows_removed": len(removed),
                "same_fingerprint": before.fingerprints[teacher] == now.fingerprints[teacher],
                "mean_shift": _mean_shift(before, now, teacher, new, gone),
                **_sampled(before, now, teacher),
            }
        )
    return rows


def _changed_roles(before: Snapshot, now: Snapshot) -> np.ndarray:
    """Keys of the texts that both have, in other roles."""
    common, *places = np.intersect1d(before.keys, now.keys, assume_unique=True, return_indices=True)
    roles = [
        np.concatenate([[], *(batch.column(0).to_numpy(zero_copy_only=False) for batch in each.scan(["role"], ROLES))])
        for each in (before, now)
    ]
    found = [roles[i][snapshot.order][places[i]] for i, snapshot in enumerate((before, now))]
    changed: np.ndarray = common[found[0] != found[1]]
    return changed


def _mean_shift(before: Snapshot, now: Snapshot, teacher: str, new: np.ndarray, gone: np.ndarray) -> float | None:
    """The distance of the means; `new` and `gone` are keys of the texts whose vectors only one of the two has."""
    if before.layout.dim_of(teacher) != now.layout.dim_of(teacher):
        return None
    # Sums of float16 in float64 are exact, so the difference of two sums is that of the texts alone.
    new_D = _sum(now, teacher)
    if before.fingerprints[teacher] == now.fingerprints[teacher]:  # only the texts differ: read only those
        gone_D = _sum_rows(before, teacher, np.searchsorted(before.keys, gone))
        old_D = new_D - _sum_rows(now, teacher, np.searchsorted(now.keys, new)) + gone_D
    else:
        old_D = _sum(before, teacher)
    return rounded(float(np.linalg.norm(new_D / max(1, len(now)) - old_D / max(1, len(before)))))


def _sum(snapshot: Snapshot, teacher: str) -> np.ndarray:
    """The sum of all vectors of a teacher, `[dim]` float64, in one streaming pass."""
    dim = snapshot.layout.dim_of(teacher)
    total_D = np.zeros(dim)
    for batch in snapshot.scan([VECTOR + teacher], block_rows(dim)):
        total_D += vectors_to_numpy(batch.column(0)).sum(axis=0, dtype=np.float64)
    return total_D


def _sum_rows(snapshot: Snapshot, teacher: str, rows: np.ndarray) -> np.ndarray:
    dim = snapshot.layout.dim_of(teacher)
    total_D, size = np.zeros(dim), block_rows(dim)
    for start in range(0, len(rows), size):
        total_D += snapshot.vectors(rows[start : start + size], [teacher]).sum(axis=0, dtype=np.float64)
    return total_D


def _sampled(before: Snapshot, now: Snapshot, teacher: str) -> dict[str, Any]:
    # Mostly the same texts while a corpus grows: the first of an order that the ids decide stay the first.
    rows = [np.sort(snapshot.random_order[:SAMPLE_ROWS]) for snapshot in (before, now)]
    samples = [unit(snapshot.vectors(chosen, [teacher])) for snapshot, chosen in zip((before, now), rows, strict=True)]
    keys = [snapshot.keys[chosen] for snapshot, chosen in zip((before, now), rows, strict=True)]
    # Texts that only one sample has are not compared, but they can be neighbours.
    common, *places = np.intersect1d(keys[0], keys[1], return_indices=True)
    # A sample has one candidate less than rows: a text is not its own neighbour.
    neighbours = min(NEIGHBOURS, len(keys[0]) - 1, len(keys[1]) - 1)
    if len(common) < 3 or neighbours < 1:
        return {"linear_cka": None, "changed_neighbours": None, "sampled_rows": len(common)}
    # Keys, not places: the two samples number their rows differently.
    found = [keys[i][nearest(samples[i][places[i]], samples[i], places[i], neighbours)] for i in range(2)]
    kept = [len(np.intersect1d(x, y)) for x, y in zip(*found, strict=True)]
    return {
        "linear_cka": linear_cka(samples[0][places[0]], samples[1][places[1]]),
        "changed_neighbours": rounded(1 - float(np.mean(kept)) / neighbours),
        "sampled_rows": len(common),
    }
