"""The texts that lists are about, in a file that is mapped: the system keeps in memory what memory allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from stella_assets.corpus.read import CorpusTexts
from stella_assets.storage.files import replace_atomically

ROWS = 16_384


class Texts:
    """Some texts of a corpus, by their position in it.

    Args:
        corpus: All texts.
        positions: Of those that are wanted, ascending, each once.
        path: Of the file, which is written where it does not exist.
    """

    def __init__(self, corpus: CorpusTexts, positions: np.ndarray, path: Path) -> None:
        self._positions = positions
        if not path.exists():
            with replace_atomically(path) as draft:
                _write(corpus, positions, draft)
        # Row groups of the corpus are read as a whole, and a batch has texts of all of them.
        self._blocks = pa.ipc.open_file(pa.memory_map(str(path))).read_all()["text"].chunks

    def read(self, positions: np.ndarray) -> list[str]:
        """Some of the texts.

        Args:
            positions: In the corpus, in any order.
        """
        places = np.searchsorted(self._positions, positions)
        return [self._blocks[place // ROWS][place % ROWS].as_py() for place in places.tolist()]


def _write(corpus: CorpusTexts, positions: np.ndarray, path: Path) -> None:
    schema = pa.schema({"text": pa.large_string()})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for start in range(0, len(positions), ROWS):
            block = corpus.take(positions[start : start + ROWS], ["text"])
            # One batch for each block, so that a place tells its batch.
            writer.write_batch(block.cast(schema).combine_chunks().to_batches()[0])
