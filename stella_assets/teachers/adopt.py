"""Vectors that were made elsewhere become part of the store, after a sample of them was encoded again and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl

from stella_assets.core.errors import UserError
from stella_assets.corpus.text import normalise, text_id
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.imported import importing
from stella_assets.teachers.kinds.base import Role, TeacherModel
from stella_assets.teachers.vectors import VectorTable

# Enough to see shifted rows or a wrong prompt, and few to encode before anything is stored.
SAMPLE_ROWS = 64
# Room for bfloat16 and for other kernels; vectors of a wrong prompt or pooling are below it.
MIN_COSINE = 0.999


class AdoptionError(UserError):
    """Vectors are not those of the teacher and the texts that they are said to be of."""


def adopt_vectors(
    vectors: np.ndarray,
    texts: Sequence[str],
    model: TeacherModel,
    role: Role,
    workspace: Workspace,
    name: str,
    on_rows: Callable[[int], None] = lambda _rows: None,
) -> dict[str, Any]:
    """Store vectors that were made elsewhere.

    They are normalised, and a sample is compared with what the teacher makes of the same texts; nothing is stored
    unless every cosine of it is at least 0.999. Texts that normalisation changes are not stored, as their vectors are
    those of another text. Garbage collection keeps the table until a person gives it up: see `imported`.

    Args:
        vectors: `[rows, dim]` of any float type.
        texts: One per row.
        model: The teacher that made the vectors.
        role: Role that the texts were encoded in.
        workspace: Where the store is.
        name: The teacher's name.
        on_rows: Called with a number of rows as they are stored.

    Returns:
        Counts: `rows`, `stored`, `there_already`, `changed_by_normalisation`, `doubled`, and `least_cosine` of the
        sample.

    Raises:
        AdoptionError: The vectors have other dimensions, none of the texts is in normal form, or the sample is not
            finite or not this teacher's.
        VectorError: A vector outside the sample is not finite or has norm 0; nothing of its unit is stored.
        DiskSpaceError: The disk is full. What was committed stays.

    Example:
        >>> file = Memmap(Path("vectors.f32"), Path("texts.txt"), dim=1024, dtype="float32")
        >>> vectors, texts = file.open()
        >>> adopt_vectors(vectors, texts, model, "document", workspace, "stella")["stored"]
    """
    if vectors.shape[1] != model.dim:
        raise AdoptionError(
            f"teacher {name!r} has {model.dim} dimensions, the file {vectors.shape[1]}.",
            "Correct --dim, or name the teacher that made it.",
        )
    clean = normalise(pl.Series("text", texts, pl.String)).to_list()
    usable: dict[str, int] = {}
    changed = 0
    for row, (text, written) in enumerate(zip(clean, texts, strict=True)):
        if text != written or not text:
            changed += 1
        else:
            # The first of several rows with one text is kept: a table has one row per key.
            usable.setdefault(text_id(text), row)
    least = _compare_sample(vectors, clean, list(usable.values()), model, role, name)
    # In the order of ids, as encoding fills a table, so that keys lie in sorted runs.
    ids = sorted(usable)
    rows = np.array([usable[key] for key in ids], dtype=np.int64)
    about = {"name": name, **model.describe(role), "imported": True}
    table = VectorTable(workspace, model.fingerprint(role), model.dim, about)

    def read_unit(places: list[int]) -> np.ndarray:
        # Read per unit: the file is a memory map and may be larger than memory. The floor keeps a row of zeros at zero,
        # which the codec then refuses.
        block = np.asarray(vectors[places], dtype=np.float32)
        on_rows(len(places))
        return block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12)

    with importing(workspace, model.fingerprint(role), name):
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
        raise AdoptionError(
            "none of the texts is in normal form, so no vector could ever be found again.",
            "Give the texts as the corpus has them.",
        )
    # Ascending, so that a memory map is read forwards; a fixed seed, so that a second try tests the same rows.
    sample = np.sort(np.random.default_rng(0).choice(rows, min(SAMPLE_ROWS, len(rows)), replace=False))
    given = np.asarray(vectors[sample], dtype=np.float32)
    norms = np.linalg.norm(given, axis=1)
    # A wrong dtype shows here first: float16 bytes read as float32 give NaN or huge numbers.
    if not np.isfinite(norms).all() or (norms == 0).any():
        bad = int(sample[np.flatnonzero(~np.isfinite(norms) | (norms == 0))[0]])
        raise AdoptionError(f"row {bad}: holds NaN, infinity or only zeros.", "Is --dtype right? Nothing was stored.")
    made = model.encode([texts[row] for row in sample], role)
    cosines = np.einsum("nd,nd->n", given / norms[:, None], made)
    worst = int(cosines.argmin())
    # Not `<`: NaN, which `argmin` finds first, is below nothing.
    if not cosines[worst] >= MIN_COSINE:
        raise AdoptionError(
            f"row {sample[worst]}: the cosine with what teacher {name!r} makes of its text is {cosines[worst]:.4f}, "
            f"below {MIN_COSINE}.",
            "Do the lines of the texts match the rows, and are prompt, role and maximum length those of the recipe? "
            "Nothing was stored.",
        )
    return float(cosines[worst])
