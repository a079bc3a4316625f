"""Retrievers: students that score a query with a document, with more than one vector per text or with none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from stella_assets.core.devices import Compute


class Retriever(Protocol):
    """A retriever in memory."""

    @property
    def model(self) -> Any:
        """The model of sentence-transformers."""

    def score_pairs(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Score pairs; a higher score says that the document answers the query better.

        Args:
            queries: One per pair, without markers or prompts.
            documents: As many.

        Returns:
            `[n]` float32.
        """


class RetrieverSettings(Protocol):
    """What a saved retriever is read with."""

    @property
    def name(self) -> str:
        """Its name in the recipe."""

    def load(self, folder: Path, compute: Compute) -> Retriever:
        """Read a retriever from the folder that it was saved to.

        Args:
            folder: That sentence-transformers loads.
            compute: Where it computes.
        """


@dataclass(frozen=True)
class SavedRetriever:
    """A retriever on disk: what the step `retriever/<name>` reads as.

    Attributes:
        folder: That sentence-transformers loads.
        config: The settings that it was made with.
    """

    folder: Path
    config: RetrieverSettings

    def load(self, compute: Compute) -> Retriever:
        """Read it."""
        return self.config.load(self.folder, compute)
