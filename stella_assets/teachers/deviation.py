"""How far a teacher's vectors of the same texts lie apart, in two workspaces."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stella_assets.core.step import Artefact, Deviation, Step
from stella_assets.core.trace import Tracer
from stella_assets.corpus.read import CorpusTexts
from stella_assets.storage.keys import find_sorted
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.roles import read_keys
from stella_assets.teachers.teacher_vectors import read_reference

MIN_COSINE = 0.999
"""Of a vector with the one that was computed before; bfloat16 against float32 is above it."""
BLOCK_ROWS = 4096


def compare_vectors(
    corpus: Step[CorpusTexts], before: Artefact, its_workspace: Workspace, now: Artefact, workspace: Workspace
) -> Deviation:
    """Compare two artefacts of one teacher over the texts that both corpora have, a block in memory at a time.

    Args:
        corpus: Reads the corpora.
        before: An artefact of the teacher's vectors.
        its_workspace: Where it is.
        now: Another one.
        workspace: Where that is.

    Returns:
        Whether the least cosine is at least `MIN_COSINE`, and the figure in words. Not acceptable where dimensions
        differ, a corpus is gone, or no text is in both.

    Raises:
        MissingKeysError: A text has no vector in one of the stores.
    """
    first, second = read_reference(before.folder), read_reference(now.folder)
    # A verdict, not an error: the comparison of a whole graph goes on with the next step.
    if first.dim != second.dim:
        return Deviation(False, f"{first.dim} dimensions before, {second.dim} now")
    texts_before, texts_now = _read_corpus(corpus, before, its_workspace), _read_corpus(corpus, now, workspace)
    if texts_before is None or texts_now is None:
        return Deviation(False, "a corpus is gone")
    least, compared = 1.0, 0
    stored = first.open(its_workspace), second.open(workspace)
    for ids, roles in _common_texts(texts_before, texts_now):
        a_ND, b_ND = (each.fetch(ids, roles).astype(np.float32) for each in stored)
        # Stored norms deviate from 1 by up to 1.5e-3: more than the tolerance of the cosine.
        norms_N = np.linalg.norm(a_ND, axis=1) * np.linalg.norm(b_ND, axis=1)
        # numpy's minimum is NaN where a cosine is; Python's would pass over it.
        least = float(np.minimum(least, (np.einsum("nd,nd->n", a_ND, b_ND) / norms_N).min()))
        compared += len(ids)
    if not compared:
        return Deviation(False, "the corpora have no text in common")
    return Deviation(least >= MIN_COSINE, f"least cosine {least:.6f}, tolerance {MIN_COSINE}")


def _read_corpus(corpus: Step[CorpusTexts], made_of_it: Artefact, workspace: Workspace) -> CorpusTexts | None:
    """The corpus that an artefact was made of; None where it is gone."""
    digest = made_of_it.manifest.identity.inputs[corpus.stored_as]
    folder = Tracer(workspace).folder_of(digest, corpus.stored_as)
    if folder is None:
        return None
    return corpus.read(Artefact.open(corpus.stored_as, folder), workspace)


def _common_texts(before: CorpusTexts, now: CorpusTexts) -> Iterator[tuple[list[str], list[str]]]:
    """Ids and roles of the texts that both corpora have in the same role, block by block."""
    (keys, roles), (keys_now, roles_now) = read_keys(before), read_keys(now)
    if not len(keys):
        return
    # A corpus is in the order of ids, so its keys are sorted.
    at, there = find_sorted(keys, keys_now)
    common = np.flatnonzero(there & (roles[at] == roles_now))
    for start in range(0, len(common), BLOCK_ROWS):
        # A text in another role has another prompt, so only equal roles are compared.
        rows = now.take(common[start : start + BLOCK_ROWS], ["id", "role"]).to_pydict()
        yield rows["id"], rows["role"]
