"""Vectors that were made elsewhere become part of the store, after a sample of them was made again and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
from storage.workspace import Workspace

from stella_assets.corpus.text import normalise, text_id
from stella_assets.teachers.encode import Role, TeacherModel
from storage.vectors import VectorError, VectorTable

SAMPLE_ROWS = 64
LEAST_COSINE = 0.999
BLOCK_ROWS = 8192


def adopt_vectors(
    vectors: np.ndarray,
    texts: Sequence[str],
    model: TeacherModel,
    role: Role,
    workspace: Workspace,
    name: str,
    on_rows: Callable[[int], None] = lambda _rows: None,
) -> dict[str, Any]:
    """Store vectors `[rows, dim]` of any float type that were made of `texts`, row by row.

    They are normalised, and a sample is compared with what the teacher makes of the same texts; nothing is stored
    unless every cosine of it is at least 0.999. Texts that normalisation changes are not stored, as their vectors are
    those of another text.

    Returns:
        Counts: `rows`, `stored`, `there_already`, `changed_by_normalisation`, and `least_cosine` of the sample.

    Raises:
        VectorError: The vectors have other dimensions, are not finite, or are not this teacher's.
    """
    if vectors.shape[1] != model.dim:
        raise VectorError(
            f"teacher {name!r} has {model.dim} dimensions, the file {vectors.shape[1]}. Correct --dim, or name the "
            "teacher that made it."
        )
    clean = normalise(pl.Series("text", texts, pl.String)).to_list()
    usable: dict[str, int] = {}
    changed = 0
    for row, (text, written) in enumerate(zip(clean, texts, strict=True)):
        if text != written or not text:
            changed += 1
        else:
            usable.setdefault(text_id(text), row)
    least = _compare_sample(vectors, clean, list(usable.values()), model, role, name)
    ids = sorted(usable)
    rows = np.array([usable[key] for key in ids], dtype=np.int64)
    about = {"name": name, **model.describe(role), "imported": True}
    table = VectorTable(workspace, model.fingerprint(role), model.dim, about)

    def read_unit(places: list[int]) -> np.ndarray:
        block = np.asarray(vectors[places], dtype=np.float32)
        on_rows(len(places))
        return block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12)

    stored = table.fill(ids, lambda at: rows[at].tolist(), read_unit)
    return {
        "rows": len(texts),
        "stored": stored,
        "there_already": len(ids) - stored,
        "changed_by_normalisation": changed,
        "doubled": len(texts) - changed - len(ids),
        "least_cosine": round(least, 6),
    }


def _compare_sample(
    vectors: np.ndarray, texts: Sequence[str], rows: list[int], model: TeacherModel, role: Role, name: str
) -> float:
    if not rows:
        raise VectorError("none of the texts is as normalisation leaves it, so no vector could ever be found again.")
    sample = np.sort(np.random.default_rng(0).choice(rows, min(SAMPLE_ROWS, len(rows)), replace=False))
    given = np.asarray(vectors[sample], dtype=np.float32)
    norms = np.linalg.norm(given, axis=1)
    if not np.isfinite(norms).all() or (norms == 0).any():
        bad = int(sample[np.flatnonzero(~np.isfinite(norms) | (norms == 0))[0]])
        raise VectorError(f"row {bad}: holds NaN, infinity or only zeros. Is --dtype right? Nothing was stored.")
    made = model.encode([texts[row] for row in sample], role)
    cosines = np.einsum("nd,nd->n", given / norms[:, None], made)
    worst = int(cosines.argmin())
    if cosines[worst] < LEAST_COSINE:
        raise VectorError(
            f"row {sample[worst]}: the cosine with what teacher {name!r} makes of its text is {cosines[worst]:.4f}, "
            f"below {LEAST_COSINE}. Do the lines of the texts match the rows, and are prompt, role and maximum length "
            "those of the recipe? Nothing was stored."
        )
    return float(cosines[worst])
