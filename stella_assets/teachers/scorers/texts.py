"""Texts of a corpus by their ids, in bounded memory, and the keys of pairs."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stella_assets.corpus.read import CorpusTexts
from stella_assets.storage.keyed_table import PART_KEYS
from stella_assets.storage.keys import Keys, Positions, find_sorted, to_keys
from stella_assets.storage.polars import pl

NO_TEXT = "a text that the corpus does not have"
"""Why a pair has no score."""


def keys_of(ids: pl.Series) -> Keys:
    """Ids as keys, without a Python object for each."""
    # Part by part: offsets of Arrow's usual strings end at 2 GiB.
    starts = range(0, len(ids), PART_KEYS)
    parts = [to_keys(ids.slice(start, PART_KEYS).to_arrow().cast(pa.string())) for start in starts]
    return np.concatenate([to_keys([]), *parts])


def pair_keys(pairs: pl.DataFrame) -> Keys:
    """A key `[n]` for each pair: of both ids, and of which is the query."""
    ids = zip(pairs["query"], pairs["document"], strict=True)
    digests = b"".join(hashlib.sha256((query + document).encode()).digest()[:16] for query, document in ids)
    return np.frombuffer(digests, dtype="S16")


class PairTexts:
    """The texts of pairs.

    Args:
        pairs: With the ids `query` and `document`.
        texts: The corpus.

    Attributes:
        there_N: Whether the corpus has both texts.
    """

    def __init__(self, pairs: pl.DataFrame, texts: CorpusTexts) -> None:
        self._texts = texts
        keys = np.empty(len(texts), dtype="S16")
        start = 0
        for batch in texts.scan(["id"]):
            keys[start : start + len(batch)] = to_keys(batch.column("id"))
            start += len(batch)
        self._query_N, has_query_N = find_sorted(keys, keys_of(pairs["query"]))
        self._document_N, has_document_N = find_sorted(keys, keys_of(pairs["document"]))
        self.there_N: npt.NDArray[np.bool_] = has_query_N & has_document_N

    def read(self, places: Positions) -> tuple[list[str], list[str]]:
        """Queries and documents of some pairs."""
        both = np.concatenate([self._query_N[places], self._document_N[places]])
        # Each text once, ascending, as the corpus is read group by group.
        wanted, at = np.unique(both, return_inverse=True)
        found = self._texts.take(wanted, ["text"]).column("text").to_pylist()
        texts = [found[each] for each in at]
        return texts[: len(places)], texts[len(places) :]
