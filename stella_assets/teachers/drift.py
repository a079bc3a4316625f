"""Drift: how far a snapshot has moved from the one before it."""

from __future__ import annotations

from typing import Any

import numpy as np
from storage.workspace import Workspace

from stella_assets.teachers.measures import NEIGHBOURS, linear_cka, nearest, rounded, unit
from storage.database import to_numpy
from storage.snapshot import VECTOR, Snapshot, snapshot_tags

SAMPLE_ROWS = 2048
BLOCK_ENTRIES = 2**23


def previous_snapshot(workspace: Workspace, recipe: str, tag: str) -> tuple[str, Snapshot] | None:
    """The recipe's snapshot before this one, with its tag, if a tag still names one."""
    tags = list(snapshot_tags(workspace, recipe))
    place = tags.index(tag)
    return (tags[place - 1], Snapshot.open(workspace, recipe, tags[place - 1])) if place else None


def snapshot_drift(before: Snapshot, now: Snapshot) -> list[dict[str, Any]]:
    """How far each teacher that both snapshots have moved.

    `mean_shift` is the distance of the mean vectors; None when the dimensions differ. `linear_cka` compares the vectors
    of texts that both have, 1 when a teacher stayed the same. `changed_neighbours` is the share of a text's nearest
    neighbours, within a sample of its snapshot, that are not its neighbours in the other: it sees new texts, too.
    """
    added, removed = np.setdiff1d(now.keys, before.keys), np.setdiff1d(before.keys, now.keys)
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
                "mean_shift": _mean_shift(before, now, teacher, added, removed),
                **_sampled(before, now, teacher),
            }
        )
    return rows


def _mean_shift(before: Snapshot, now: Snapshot, teacher: str, added: np.ndarray, removed: np.ndarray) -> float | None:
    dims = [s.layout.dims[s.layout.teachers.index(teacher)] for s in (before, now)]
    if dims[0] != dims[1]:
        return None
    new_D = _sum(now, teacher)
    if before.fingerprints[teacher] == now.fingerprints[teacher]:  # only the texts differ: read those alone
        gone_D = _sum_rows(before, teacher, np.searchsorted(before.keys, removed))
        old_D = new_D - _sum_rows(now, teacher, np.searchsorted(now.keys, added)) + gone_D
    else:
        old_D = _sum(before, teacher)
    return rounded(float(np.linalg.norm(new_D / max(1, len(now)) - old_D / max(1, len(before)))))


def _sum(snapshot: Snapshot, teacher: str) -> np.ndarray:
    """The sum of all vectors of a teacher, `[dim]` float64, in one streaming pass."""
    dim = snapshot.layout.dims[snapshot.layout.teachers.index(teacher)]
    total_D = np.zeros(dim)
    for batch in snapshot.scan([VECTOR + teacher], max(64, min(8192, BLOCK_ENTRIES // dim))):
        total_D += to_numpy(batch.column(0)).sum(axis=0, dtype=np.float64)
    return total_D


def _sum_rows(snapshot: Snapshot, teacher: str, rows: np.ndarray) -> np.ndarray:
    dim = snapshot.layout.dims[snapshot.layout.teachers.index(teacher)]
    total_D, size = np.zeros(dim), max(64, min(8192, BLOCK_ENTRIES // dim))
    for start in range(0, len(rows), size):
        total_D += snapshot.vectors(rows[start : start + size], [teacher]).sum(axis=0, dtype=np.float64)
    return total_D


def _sampled(before: Snapshot, now: Snapshot, teacher: str) -> dict[str, Any]:
    rows = [_sample(snapshot.keys) for snapshot in (before, now)]
    samples = [unit(snapshot.vectors(chosen, [teacher])) for snapshot, chosen in zip((before, now), rows, strict=True)]
    keys = [snapshot.keys[chosen] for snapshot, chosen in zip((before, now), rows, strict=True)]
    common, *places = np.intersect1d(keys[0], keys[1], return_indices=True)
    neighbours = min(NEIGHBOURS, len(keys[0]) - 1, len(keys[1]) - 1)
    if len(common) < 3 or neighbours < 1:
        return {"linear_cka": None, "changed_neighbours": None, "sampled_rows": len(common)}
    found = [keys[i][nearest(samples[i][places[i]], samples[i], places[i], neighbours)] for i in range(2)]
    kept = [len(np.intersect1d(x, y)) for x, y in zip(*found, strict=True)]
    return {
        "linear_cka": linear_cka(samples[0][places[0]], samples[1][places[1]]),
        "changed_neighbours": rounded(1 - float(np.mean(kept)) / neighbours),
        "sampled_rows": len(common),
    }


def _sample(keys: np.ndarray) -> np.ndarray:
    """Rows whose ids come first by their second half, ascending: mostly the same texts as a corpus grows."""
    return np.sort(np.argsort(keys.view("S8").reshape(-1, 2)[:, 1], kind="stable")[:SAMPLE_ROWS])
