"""The texts of a corpus that are nearest to a query, as a release sees them.

Shapes: B texts of a batch, D dimensions of a vector.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from stella_assets.core.config import ModelSource
from stella_assets.core.devices import Compute
from stella_assets.core.models import code_digest
from stella_assets.core.progress import progress_bar
from stella_assets.corpus.read import CorpusTexts
from stella_assets.evaluation.base_model import BaseModelEmbedder
from stella_assets.storage.workspace import Workspace

DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""What `encode_document` of sentence-transformers looks for, in its order."""
COLUMNS = ("id", "text", "source", "origin", "split", "licence")


@dataclass(frozen=True, order=True)
class Hit:
    """A text of the corpus.

    Attributes:
        cosine: With the query.
        id: Of the text.
        text: As the corpus has it.
        source: Where it comes from.
        origin: Place within the source.
        split: `train`, `dev` or `test`.
        licence: Of the text.
    """

    cosine: float
    id: str
    text: str
    source: str
    origin: str
    split: str
    licence: str


class ReleaseSearch:
    """Exact search with the vectors of `encode_query` and `encode_document` of a release.

    Vectors of texts are kept in the store by the release's content, as those of evaluated texts, so that the corpus is
    encoded once. They are float16; cosines are computed in float32.

    Args:
        folder: Of the release.
        trust_remote_code: Whether its code, which the release has from its student, may run.
        workspace: Where vectors are kept.
        compute: What it computes with.
    """

    def __init__(self, folder: Path, *, trust_remote_code: bool, workspace: Workspace, compute: Compute) -> None:
        pin = code_digest(folder) if trust_remote_code else None
        source = ModelSource(model=str(folder), trust_remote_code=trust_remote_code, code_digest=pin)
        self._embedder = BaseModelEmbedder(source, workspace, compute, name="release")

    def nearest(self, query: str, texts: CorpusTexts, top: int, split: str | None = None) -> list[Hit]:
        """The texts with the largest cosines, the nearest first.

        Args:
            query: Without a prompt.
            texts: Of the corpus.
            top: How many.
            split: Only of this one; None for all.
        """
        prompts = self._embedder.prompts
        named = next((prompts[name] for name in DOCUMENT_PROMPTS if name in prompts), None)
        query_D = self._embedder.embed_with([query], prompts.get("query"))[0].astype(np.float32)
        found: list[Hit] = []
        with progress_bar(count(texts, split), "corpus", "texts") as bar:
            for batch in _batches(texts, split):
                rows_BD = self._embedder.embed_with(batch.column("text").to_pylist(), named).astype(np.float32)
                cosines_B = rows_BD @ query_D / np.linalg.norm(rows_BD, axis=1) / np.linalg.norm(query_D)
                best = np.argsort(-cosines_B, kind="stable")[:top]
                hits = [
                    Hit(float(cosine), *row.values())
                    for cosine, row in zip(cosines_B[best], batch.take(best).to_pylist(), strict=True)
                ]
                found = heapq.nlargest(top, [*found, *hits])
                bar.update(len(batch))
        return found


def count(texts: CorpusTexts, split: str | None) -> int:
    """How many texts of a corpus are of a split; all for None."""
    if split is None:
        return len(texts)
    return sum(int(pc.sum(pc.equal(batch.column(0), split)).as_py() or 0) for batch in texts.scan(["split"]))


def _batches(texts: CorpusTexts, split: str | None) -> Iterator[Any]:
    for batch in texts.scan(COLUMNS):
        chosen = batch if split is None else batch.filter(pc.equal(batch.column("split"), split))
        if len(chosen):
            yield chosen
