"""Whether every library that loads a student's folder gives the vectors of the student in memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stella_assets.core.errors import UserError
from stella_assets.core.manifest import Check
from stella_assets.release.reload import cosines, vectors_of_release

if TYPE_CHECKING:
    from stella_assets.students.dense.model import DenseStudent

# A clean process loads every head on the processor; more texts find no other faults.
COMPARED_TEXTS = 32
PROMPTED_TEXTS = 8
"""Of these, how many are also compared with each prompt in front."""
# Float32 on another device or library moves the sixth digit; another pooling or head moves the first.
SAME = 0.99999
"""Minimum cosine of a vector that a loader gives with the one that the student gives, both in float32."""
DRIFTED = 0.97
"""Minimum mean cosine of vectors of int8 weights."""
INT8 = "onnx_int8"
AGREEMENT = "every_loader_gives_the_same_vectors"
"""Name of the check."""


class LoaderError(UserError):
    """In a clean process, the files give other vectors than the student."""


def compare_loaders(
    student: DenseStudent,
    folder: Path,
    texts: Sequence[str],
    prompts: Mapping[str, str],
    scratch: Path,
    *,
    trust: bool,
) -> list[dict[str, Any]]:
    """Load a student's folder in a clean process, and compare its vectors with the student's own, both in float32.

    Args:
        student: In float32: loaders compute so, and bfloat16 autocast would be a difference of its own.
        folder: What was saved of it.
        texts: Without prompts; the first ones are compared.
        prompts: Of the student, by name.
        scratch: For the files that the processes exchange.
        trust: Whether the clean process may run the model's own code.

    Returns:
        One row of `RELEASED_VECTORS` per loader and dimension.

    Raises:
        ReloadError: The folder cannot be loaded.
    """
    import torch

    compared = list(texts[:COMPARED_TEXTS])
    # Several names may have the same prompt, and the empty one is none.
    different = dict.fromkeys(filter(None, prompts.values()))
    compared += [prompt + text for prompt in different for text in compared[:PROMPTED_TEXTS]]
    loaded = vectors_of_release(folder, compared, scratch, trust_remote_code=trust)
    pooled_BH = torch.from_numpy(student.encode_pooled(compared)).to(student.device)
    rows = []
    for name, vectors in loaded.items():
        loader, _, dim = name.rpartition("_")
        found = cosines(vectors, student.project(pooled_BH, student.head_of(int(dim))).detach().cpu().numpy())
        least, mean = float(found.min()), float(found.mean())
        of_texts = {"texts": len(compared), "least_cosine": least, "mean_cosine": mean}
        rows.append({"loader": loader, "dimension": int(dim), **of_texts})
    return rows


def worst_loader(loaders: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The loader that is furthest from the student; int8 weights are expected to differ.

    Args:
        loaders: Rows of `RELEASED_VECTORS`.
    """
    # Every comparison with NaN is false, so that `min` alone would pass over it.
    exact = (row for row in loaders if row["loader"] != INT8)
    return min(exact, key=lambda row: -math.inf if math.isnan(row["least_cosine"]) else row["least_cosine"])


def agreement(loaders: Sequence[Mapping[str, Any]]) -> Check:
    """The check that says how well loaders agree, of which `require_same` has refused none.

    Args:
        loaders: Rows of `RELEASED_VECTORS`.
    """
    worst = worst_loader(loaders)
    return Check(
        AGREEMENT,
        True,  # otherwise the build has failed
        f"minimum cosine {worst['least_cosine']:.6f}, of {worst['loader']} at {worst['dimension']} dimensions",
        {"least_cosine": worst["least_cosine"]},
    )


def require_same(what: str, loaders: Sequence[Mapping[str, Any]]) -> None:
    """Make sure that all loaders agree with the student.

    Args:
        what: Was compared, to begin the message with, e.g. `release`.
        loaders: Rows of `RELEASED_VECTORS`.

    Raises:
        LoaderError: One does not.
    """
    worst = worst_loader(loaders)
    if not worst["least_cosine"] >= SAME:  # NaN is refused, too
        raise LoaderError(
            f"{what}: {worst['loader']} gives other vectors of {worst['dimension']} dimensions than the student, with "
            f"a minimum cosine of {worst['least_cosine']:.6f}, not {SAME}.",
            "Look at the student's architecture and pooling.",
        )
