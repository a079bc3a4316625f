"""How far two students of one step lie apart: by what they give to the same held-out texts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from stella_assets.core.devices import Compute
from stella_assets.core.step import Deviation
from stella_assets.corpus.probe import probe_rows
from stella_assets.storage.polars import pl
from stella_assets.students import SavedStudent
from stella_assets.students.retriever import SavedRetriever
from stella_assets.teachers.snapshot import Snapshot

# Other processors and numbers of processes round sums differently, and training amplifies it: bits may differ.
MIN_COSINE = 0.99
"""In the mean over texts, of the vectors of two students that count as the same."""
MIN_CORRELATION = 0.99
"""Pearson's, of the scores of two retrievers that count as the same."""
COMPARED = 4
"""Documents that each text is scored with as a query."""


def probe_texts(snapshot: Snapshot) -> list[str]:
    """Some test documents, or others where there are few: the same ones of every snapshot of the same texts.

    Args:
        snapshot: Of the recipe.

    Returns:
        At most 128 texts.
    """
    rows = pl.DataFrame(pa.Table.from_batches(snapshot.scan(["id", "split", "role"])))
    # Rows of a snapshot are numbered by their ids.
    return snapshot.take(probe_rows(rows.sort("id")), ["text"])["text"]


def compare_students(before: SavedStudent, now: SavedStudent, texts: list[str]) -> Deviation:
    """Compare two students.

    Args:
        before: One.
        now: The other, of the same dimensions.
        texts: What both encode.

    Returns:
        Whether they count as the same, and the mean cosine.
    """
    # On the device of this machine, whatever either was trained on. Vectors are of unit norm: products are cosines.
    vectors = [student.load(Compute()).encode(texts) for student in (before, now)]
    mean = float(np.einsum("nd,nd->n", *vectors).mean())
    return Deviation(mean >= MIN_COSINE, f"mean cosine {mean:.4f}, tolerance {MIN_COSINE}")


def compare_retrievers(before: SavedRetriever, now: SavedRetriever, texts: list[str]) -> Deviation:
    """Compare two retrievers.

    Args:
        before: One.
        now: The other.
        texts: Each is scored with the ones that follow it.

    Returns:
        Whether they count as the same, and the correlation of their scores.
    """
    queries = [text for text in texts for _ in range(COMPARED)]
    documents = [texts[(n + k) % len(texts)] for n in range(len(texts)) for k in range(1, COMPARED + 1)]
    scores = [retriever.load(Compute()).score_pairs(queries, documents) for retriever in (before, now)]
    correlation = float(np.corrcoef(scores)[0, 1])
    return Deviation(
        correlation >= MIN_CORRELATION, f"correlation of scores {correlation:.4f}, tolerance {MIN_CORRELATION}"
    )
