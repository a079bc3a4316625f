"""Vectors that were made elsewhere become part of the store, after a sample of them was encoded again and compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stella_assets.core.errors import UserError
from stella_assets.corpus.text import normalise, text_id
from stella_assets.storage.keys import to_keys
from stella_assets.storage.polars import pl
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.imported import importing
from stella_assets.teachers.kinds.base import Role, TeacherConfig, TeacherModel
from stella_assets.teachers.vectors import VectorTable

# Enough to see shifted rows or a wrong prompt, and few to encode before anything is stored.
SAMPLE_ROWS = 64
ANSWERS_AT_ONCE = 4096
"""Rows of a record of a journal."""
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
    _require_dim(vectors, model.dim, name)
    clean, usable, changed = _usable(texts)
    least = _compare_sample(vectors, clean, list(usable.values()), lambda asked: model.encode(asked, role), name)
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
    return _counts(texts, stored, len(ids), changed, least)


def adopt_answers(
    vectors: np.ndarray,
    texts: Sequence[str],
    model: Any,
    role: Role,
    name: str,
    sample: int,
    on_rows: Callable[[int], None] = lambda _rows: None,
) -> dict[str, Any]:
    """Keep vectors of a service that were asked for elsewhere, as if it had answered them here: in its journal.

    Args:
        vectors: `[rows, dim]` of any float type.
        texts: One per row.
        model: The teacher, opened; it is a paid one, so it can `keep` answers and `encode_again`.
        role: Role that the texts were sent in.
        name: The teacher's name.
        sample: Texts to ask the service for again, for money; 0 where a person vouches for the vectors.
        on_rows: Called with a number of rows as they are kept.

    Returns:
        Counts, as `adopt_vectors` does; `least_cosine` is None without a sample.

    Raises:
        AdoptionError: The vectors have other dimensions, are not finite, or the sample is not this service's.
        DiskSpaceError: The disk is full. What was kept stays.
    """
    _require_dim(vectors, model.dim, name)
    clean, usable, changed = _usable(texts)
    ids = sorted(usable)
    rows = np.array([usable[key] for key in ids], dtype=np.int64)
    least = None
    if sample:
        least = _compare_sample(
            vectors, clean, rows.tolist(), lambda asked: model.encode_again(asked, role), name, sample
        )
    stored = 0
    for start in range(0, len(ids), ANSWERS_AT_ONCE):
        here = slice(start, start + ANSWERS_AT_ONCE)
        block = _unit_rows(vectors, rows[here])
        stored += model.keep(to_keys(ids[here]), block, role)
        on_rows(len(block))
    return _counts(texts, stored, len(ids), changed, least)


def require_check(teacher: TeacherConfig, paid: int, trust: str) -> None:
    """Make sure that vectors are checked before they are imported, or that the recipe says why they are not.

    Args:
        teacher: That made the vectors.
        paid: Texts to ask a paid teacher for again.
        trust: Why vectors of a paid teacher are believed.

    Raises:
        AdoptionError: The options do not fit the teacher.
    """
    name = f"teacher {teacher.name!r}"
    if not teacher.paid:
        if paid or trust:
            raise AdoptionError(f"{name} runs here: a sample is computed again.", "Leave out --paid and --trust.")
        return
    vouched = teacher.trust_reason()
    if trust and trust != vouched:
        raise AdoptionError(
            f"{name}: its recipe states {'no `trusted`' if vouched is None else f'trusted: {vouched!r}'}, and vectors "
            "that nobody checks belong to a teacher of their own.",
            f"Write `trusted: {json.dumps(trust)}` to the teacher, and import again.",
        )
    if not (paid or trust):
        raise AdoptionError(
            f"{name}: to compute a sample again costs money.",
            "Give --paid 64 to ask the service for 64 of the texts, or --trust REASON if nobody can ask it.",
        )
    if paid and vouched:
        raise AdoptionError(f"{name}: its recipe states `trusted`, for vectors that nobody checks.", "Remove it.")


def _require_dim(vectors: np.ndarray, dim: int, name: str) -> None:
    if vectors.shape[1] != dim:
        raise AdoptionError(
            f"teacher {name!r} has {dim} dimensions, the file {vectors.shape[1]}.",
            "Correct --dim, or name the teacher that made it.",
        )


def _usable(texts: Sequence[str]) -> tuple[list[str], dict[str, int], int]:
    """The texts in normal form; the row of each that is in normal form already, by id; and how many are not."""
    clean = normalise(pl.Series("text", texts, pl.String)).to_list()
    usable: dict[str, int] = {}
    changed = 0
    for row, (text, written) in enumerate(zip(clean, texts, strict=True)):
        if text != written or not text:
            changed += 1
        else:
            # The first of several rows with one text is kept: a table has one row per key.
            usable.setdefault(text_id(text), row)
    return clean, usable, changed


def _unit_rows(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some rows, of norm 1."""
    block = np.asarray(vectors[rows], dtype=np.float32)
    norms = np.linalg.norm(block, axis=1, keepdims=True)
    if (bad := np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))).size:
        raise AdoptionError(f"row {rows[bad[0]]}: holds NaN, infinity or only zeros.", "Correct the file.")
    return block / norms


def _counts(texts: Sequence[str], stored: int, usable: int, changed: int, least: float | None) -> dict[str, Any]:
    return {
        "rows": len(texts),
        "stored": stored,
        "there_already": usable - stored,
        "changed_by_normalisation": changed,
        "doubled": len(texts) - changed - usable,
        "least_cosine": None if least is None else round(least, 6),
    }


def _compare_sample(
    vectors: np.ndarray,
    texts: Sequence[str],
    rows: list[int],
    encode: Callable[[list[str]], np.ndarray],
    name: str,
    size: int = SAMPLE_ROWS,
) -> float:
    if not rows:
        raise AdoptionError(
            "none of the texts is in normal form, so no vector could ever be found again.",
            "Give the texts as the corpus has them.",
        )
    # Ascending, so that a memory map is read forwards; a fixed seed, so that a second try tests the same rows.
    sample = np.sort(np.random.default_rng(0).choice(rows, min(size, len(rows)), replace=False))
    given = np.asarray(vectors[sample], dtype=np.float32)
    norms = np.linalg.norm(given, axis=1)
    # A wrong dtype shows here first: float16 bytes read as float32 give NaN or huge numbers.
    if not np.isfinite(norms).all() or (norms == 0).any():
        bad = int(sample[np.flatnonzero(~np.isfinite(norms) | (norms == 0))[0]])
        raise AdoptionError(f"row {bad}: holds NaN, infinity or only zeros.", "Is --dtype right? Nothing was stored.")
    made = encode([texts[row] for row in sample])
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
