"""The examination of an opened teacher: vectors of the probe, compared with all that is known of them.

Shapes: P texts of the probe, D dimensions of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stella_assets.core.errors import UserError
from stella_assets.teachers.kinds.base import Role, TeacherConfig, TeacherModel

PROBE = (
    "sort",
    "How do I read a file line by line?",
    "A vector database keeps the embeddings of texts and finds the nearest ones to a query.",
    "def area(radius): return 3.14159 * radius**2  # of a circle",
    "Zürich, São Paulo und 東京: 25 °C, “warm”, but it rained for most of the week.",
    "The first long distance telephone line was opened to the public after years of trials. Engineers had doubled "
    "the copper, moved the wires apart and put coils into the line at even distances, because speech lost its high "
    "tones on the way. Operators in nine towns had to set up each call by hand, so it took seven minutes on average "
    "until two people could speak. A call of three minutes cost as much as a worker earned in a week, and still the "
    "line was busy from the first day on.",
)
"""Short and long texts, code and other scripts: they are padded, cut into unknown tokens, and have many positions."""
ROLES: tuple[Role, ...] = ("document", "query")
MIN_COSINE, MIN_COSINE_ROUNDED = 0.9999, 0.995
"""Of two vectors of one text in float32, and in number formats with 8 bits of precision, where kernels differ more."""
MAX_NORM_ERROR = 1e-3
MAX_COSINE = 0.999999
"""Above it two texts have one vector. First tokens of encoders that no similarity was trained into reach 0.9999."""
SHOWN = 40
"""Characters of a text in a message."""


class KnownVectorsError(UserError):
    """A teacher does not make the vectors that it is known to make."""


def tolerance(dtype: str | None) -> float:
    """The smallest cosine of two equal vectors that a teacher computes in a number format."""
    return MIN_COSINE if dtype in (None, "float32") else MIN_COSINE_ROUNDED


def examine(teacher: TeacherConfig, model: TeacherModel, least: float) -> dict[Role, np.ndarray]:
    """Compare the probe's vectors with those of the authors' library, and the recipe's cosines with its own.

    Args:
        teacher: The teacher's settings.
        model: The same teacher, opened.
        least: The smallest cosine of two equal vectors.

    Returns:
        The probe's vectors, `[P, D]`, by role.

    Raises:
        KnownVectorsError: A vector is not finite, or not the one of the authors' library; or a cosine is not what the
            recipe states.
    """
    vectors = {role: model.encode(list(PROBE), role) for role in ROLES}
    for role, vectors_PD in vectors.items():
        _require_directions(teacher.name, vectors_PD)
        require_same(
            f"teacher {teacher.name!r}: the vectors of role {role} are not those of its authors' library",
            PROBE,
            vectors_PD,
            teacher.reference(model, list(PROBE), role),
            least,
            "The model may depend on padding, or on a module that is not used here. If it pads before texts, set "
            "`tokenizer_kwargs: {padding_side: right}`; otherwise use another teacher.",
        )
    require_cosines(teacher, model)
    return vectors


def without_direction(vectors_PD: np.ndarray) -> tuple[int, ...]:
    """The first vector of an encoder that says nothing of its text.

    Args:
        vectors_PD: Of different texts, of any norm.

    Returns:
        The position of one that is not finite or is zero, or of two that are the same; empty where there is none.
    """
    norms_P = np.linalg.norm(vectors_PD, axis=1)
    # Not `norms_P <= 0`: NaN is below nothing, and must be found.
    if (bad := np.flatnonzero(~((norms_P > 0) & np.isfinite(norms_P)))).size:
        return (int(bad[0]),)
    unit_PD = vectors_PD / norms_P[:, None]
    alike = np.argwhere(np.triu(unit_PD @ unit_PD.T > MAX_COSINE, 1))
    return tuple(map(int, alike[0])) if len(alike) else ()


def _require_directions(name: str, vectors_PD: np.ndarray) -> None:
    """Refuse vectors that say nothing: of a norm that is not 1, or equal ones."""
    norms_P = np.linalg.norm(vectors_PD, axis=1)
    bad = [*np.flatnonzero(~(np.abs(norms_P - 1) <= MAX_NORM_ERROR))[:1], *without_direction(vectors_PD)]
    # Not `>`: NaN is above nothing, and must fail.
    if bad and not abs(norms_P[bad[0]] - 1) <= MAX_NORM_ERROR:
        raise KnownVectorsError(
            f"teacher {name!r}: the vector of {PROBE[bad[0]][:SHOWN]!r} has norm {norms_P[bad[0]]:.3g}, not 1.",
            "The weights are damaged, or are zeros. Copy or download the model again.",
        )
    if bad:
        raise KnownVectorsError(
            f"teacher {name!r}: it gives {PROBE[bad[0]][:SHOWN]!r} and {PROBE[bad[1]][:SHOWN]!r} the same vector.",
            "Its weights or its tokenizer are damaged, or `max_length` leaves no room after the prompt. Copy or "
            "download the model again, or correct `max_length`.",
        )


def require_cosines(teacher: TeacherConfig, model: TeacherModel) -> None:
    """Compare cosines that the recipe states with the teacher's own.

    Raises:
        KnownVectorsError: One is not what the recipe states.
    """
    for each in teacher.known_cosines():
        a_1D, b_1D = model.encode([each.a], each.role_a), model.encode([each.b], each.role_b)
        found = float((a_1D * b_1D).sum())
        # Not `>`: NaN is above nothing, and must fail.
        if not abs(found - each.cosine) <= each.tolerance:
            raise KnownVectorsError(
                f"teacher {teacher.name!r}: expected_cosines: {each.a[:SHOWN]!r} as {each.role_a} and "
                f"{each.b[:SHOWN]!r} as {each.role_b} have cosine {found:.4f}, not {each.cosine:g} within "
                f"{each.tolerance:g}.",
                "Compare `prompts`, `max_length` and `revision` with the model's card.",
            )


def require_same(
    what: str, texts: Sequence[str], now_PD: np.ndarray, known_PD: np.ndarray, least: float, remedy: str
) -> None:
    """Make sure that texts have the vectors that are known.

    Args:
        what: What it means if they differ; begins the message.
        texts: P of them.
        now_PD: Of this process, of unit norm.
        known_PD: What is known, of unit norm.
        least: The smallest cosine that counts as equal.
        remedy: What to do.

    Raises:
        KnownVectorsError: They differ, or are not finite.
    """
    if now_PD.shape != known_PD.shape:
        raise KnownVectorsError(f"{what}: {now_PD.shape[1]} dimensions instead of {known_PD.shape[1]}.", remedy)
    cosines_P = np.einsum("pd,pd->p", now_PD.astype(np.float64), known_PD.astype(np.float64))
    # Not `<`: NaN is below nothing, and must count as different.
    wrong = np.flatnonzero(~(cosines_P >= least))
    if wrong.size:
        worst = int(wrong[np.argmin(np.nan_to_num(cosines_P[wrong], nan=-1.0))])
        raise KnownVectorsError(
            f"{what}: {texts[worst][:SHOWN]!r} has cosine {cosines_P[worst]:.4f}, below {least:g}.", remedy
        )
