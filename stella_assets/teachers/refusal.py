"""Texts that a teacher does not take, and texts of a corpus without those."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from stella_assets.core.errors import UserError

RULE = "refused by teacher"
"""Of the table of dropped texts."""
SHOWN = 60
"""Characters of a text in a message."""


class RefusedTextsError(UserError):
    """A teacher does not take some of the texts; the vectors of all others are kept.

    Args:
        name: Of the teacher.
        texts: The refused ones.
        positions: Where they are among those that were given, ascending.
        reasons: Why, in the teacher's words.
    """

    def __init__(self, name: str, texts: Sequence[str], positions: Sequence[int], reasons: Sequence[str]) -> None:
        super().__init__(
            f"teacher {name!r}: does not take {len(texts):,} texts, the first is {texts[0][:SHOWN]!r} ({reasons[0]}).",
            "Leave these texts out, or shorten them.",
        )
        self.positions = np.array(positions, dtype=np.int64)
        self._arguments = (name, list(texts), list(positions), list(reasons))

    def __reduce__(self) -> tuple[type[UserError], tuple[str, list[str], list[int], list[str]]]:  # type: ignore[override]
        return type(self), self._arguments


class Texts(Protocol):
    """The texts of a corpus, in the order of their ids."""

    def __len__(self) -> int: ...

    def scan(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of all texts."""

    def take(self, positions: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Some columns of the texts at ascending positions."""


class TextsWithout:
    """The texts of a corpus without some of them.

    Args:
        texts: The corpus.
        left_out: Their positions in it, ascending.

    Example:
        >>> len(TextsWithout(texts, np.array([3, 8]))) == len(texts) - 2
        True
    """

    def __init__(self, texts: Texts, left_out: np.ndarray) -> None:
        self._texts, self._left_out = texts, left_out

    def __len__(self) -> int:
        return len(self._texts) - len(self._left_out)

    def scan(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of all of them, in batches; a batch can be empty."""
        start = 0
        for batch in self._texts.scan(columns):
            kept = np.ones(len(batch), dtype=bool)
            here = slice(*np.searchsorted(self._left_out, [start, start + len(batch)]))
            kept[self._left_out[here] - start] = False
            start += len(batch)
            yield batch if kept.all() else batch.filter(pa.array(kept))

    def take(self, positions: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Some columns of those at ascending positions."""
        return self._texts.take(positions_in_corpus(positions, self._left_out), columns)


def positions_in_corpus(positions: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Where texts are in a corpus, by their positions among those that are not left out.

    Args:
        positions: Any number.
        left_out: Positions in the corpus, ascending.
    """
    # The k-th text that is left out has `left_out[k] - k` others before it.
    shifts: np.ndarray = np.searchsorted(left_out - np.arange(len(left_out)), positions, side="right")
    return np.asarray(positions) + shifts
