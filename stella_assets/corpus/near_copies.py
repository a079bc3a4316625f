"""Near copies: pairs of texts that share many word sequences, found by MinHash and verified exactly.

Shape legend: N texts by rank, P pairs of them, C texts in some pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from stella_assets.core.progress import progress_bar
from stella_assets.corpus.settings import Deduplicate
from stella_assets.corpus.shards import CleanedTexts, Shard
from stella_assets.corpus.words import (
    Sequences,
    band_hashes,
    hashed_words,
    jaccard,
    match_form,
    min_hashes,
    sorted_distinct,
)
from stella_assets.storage.canonical import digest
from stella_assets.storage.keys import find_sorted
from stella_assets.storage.polars import pl
from stella_assets.storage.shards import ShardStore

BANDS_VERSION = "1"
"""Of the stored bands; raised when the same text and settings give other bands."""
BANDS_KIND = "bands"
SEED = 1
NEIGHBOURS = 16
"""Texts that a text is compared with in a bucket of equal bands, in addition to the bucket's first."""
# Bounds the shingles that are in memory: those of two texts per pair.
PAIRS_AT_ONCE = 200_000


@dataclass(frozen=True)
class Pairs:
    """Near copies.

    Attributes:
        first: `[P]`, the text of lower rank.
        second: `[P]`, the other text.
        similarity: `[P]`, Jaccard similarity of their word sequences.
    """

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray


NO_PAIRS = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


def near_copies(texts: pl.DataFrame, cleaned: CleanedTexts, settings: Deduplicate, scratch: Path) -> Pairs:
    """All pairs that share a band and are at least as similar as `settings.threshold`.

    Args:
        texts: `shard` (its number) and `row` of each text, by rank.
        cleaned: Where the texts are.
        settings: What counts as a near copy.
        scratch: For temporary files.

    Returns:
        Pairs of ranks, each once. A pair is missed if it shares no band: at similarity s with probability
        `(1 - s^rows)^bands`.

    References:
        Deduplicating Training Data Makes Language Models Better, arXiv 2107.06499, section 4.2.
    """
    candidates_P2 = _candidates(texts, cleaned, settings)
    involved_C = sorted_distinct(candidates_P2.ravel())
    shingles, place_C = _shingles(texts[involved_C], cleaned, settings.words, scratch / "shingles")
    found = [NO_PAIRS]
    for start in range(0, len(candidates_P2), PAIRS_AT_ONCE):
        first, second = candidates_P2[start : start + PAIRS_AT_ONCE].T
        at = [place_C[np.searchsorted(involved_C, side)] for side in (first, second)]
        counts = [shingles.counts[side] for side in at]
        # Jaccard similarity is at most min(|A|, |B|) / max(|A|, |B|), so pairs of unequal lengths need no look.
        likely = np.minimum(*counts) >= settings.threshold * np.maximum(*counts)
        first, second, at = first[likely], second[likely], [side[likely] for side in at]
        similarity = jaccard(*(shingles.take(side) for side in at))
        kept = similarity >= settings.threshold
        found.append(Pairs(first[kept], second[kept], similarity[kept]))
    return Pairs(
        *(np.concatenate([getattr(part, name) for part in found]) for name in ("first", "second", "similarity"))
    )


def choose_copies(pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texts to remove, so that no two texts that stay are near copies.

    Args:
        pairs: Near copies, in any order.

    Returns:
        The texts to remove, the text of lower rank that each is a copy of and that stays, and how similar they are.
    """
    removed: dict[int, tuple[int, float]] = {}
    order = np.lexsort((pairs.first, pairs.second))
    rows = zip(pairs.first[order].tolist(), pairs.second[order].tolist(), pairs.similarity[order].tolist(), strict=True)
    # By ascending `second`: all pairs that decide about `first` came before, since its rank is lower.
    for first, second, similarity in rows:
        if first not in removed and second not in removed:
            removed[second] = (first, similarity)
    copies = np.fromiter(removed, np.int64, len(removed))
    keepers = np.fromiter((keeper for keeper, _ in removed.values()), np.int64, len(removed))
    return copies, keepers, np.fromiter((value for _, value in removed.values()), np.float64, len(removed))


def split_groups(bases_N: np.ndarray, pairs: Pairs, equal_bases_2E: np.ndarray) -> pl.Series:
    """`[N]` uint64: equal for texts with one base, and for those that chains of copies join.

    Args:
        bases_N: For each text, the text that it was taken from, or itself.
        pairs: Near copies.
        equal_bases_2E: Bases of texts that are equal but for case and punctuation, one pair per column.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    # Nodes are bases and not texts: texts that were taken from one text are one node.
    joined_2P = np.concatenate([np.stack([bases_N[pairs.first], bases_N[pairs.second]]), equal_bases_2E], axis=1)
    known, edges = np.unique(joined_2P, return_inverse=True)
    first, second = edges.reshape(2, -1)
    graph = coo_matrix((np.ones(len(first), bool), (first, second)), shape=(len(known), len(known)))
    _, component = connected_components(graph, directed=False)
    # The smallest base names the group, whatever the order of pairs. `minimum.at` allows repeated indices, which
    # an indexed assignment would overwrite.
    smallest = np.full(len(known), np.iinfo(np.uint64).max)
    np.minimum.at(smallest, component, known)
    # Bases without a near copy are not in `known`; they stay as they are.
    at, joined = find_sorted(known, bases_N)
    if len(known):
        bases_N = np.where(joined, smallest[component[at]], bases_N)
    return pl.Series(bases_N, dtype=pl.UInt64)


def _candidates(texts: pl.DataFrame, cleaned: CleanedTexts, settings: Deduplicate) -> np.ndarray:
    """`[P, 2]`: ranks of texts that share a band, the lower one first."""
    shards, store = cleaned.shards, ShardStore(cleaned.store.workspace, BANDS_KIND)
    suffix = digest([BANDS_VERSION, settings.settings("threshold"), SEED])
    keys = [f"{shard.key}-{suffix}" for shard in shards]
    with progress_bar(len(cleaned), "duplicates", "texts") as bar:
        for key, shard in zip(keys, shards, strict=True):
            store.ensure(key, partial(_bands, cleaned, shard, settings))
            bar.update(shard.kept)
    starts = np.cumsum([0, *(shard.kept for shard in shards)])
    flat = starts[texts["shard"].to_numpy()] + texts["row"].to_numpy()
    # Two ranks of 32 bits in one integer: integers sort faster than rows of two, and memory is half.
    packed = np.empty(0, np.uint64)
    # One band at a time: the bands of all texts together need more memory than the texts.
    for band in range(settings.bands if keys else 0):
        hashes = store.read_all(keys, [f"band_{band}"]).to_series().to_numpy()
        packed = sorted_distinct(np.concatenate([packed, _pairs_of_equal(hashes[flat])]))
    return np.stack([packed >> np.uint64(32), packed & np.uint64(2**32 - 1)], 1).astype(np.int64)


def _bands(cleaned: CleanedTexts, shard: Shard, settings: Deduplicate) -> pl.DataFrame:
    shingles = hashed_words(match_form(cleaned.rows(shard, ["text"])["text"])).shingles(settings.words)
    bands = band_hashes(min_hashes(shingles, settings.bands * settings.rows, SEED), settings.bands)
    return pl.DataFrame({f"band_{i}": pl.Series(band, dtype=pl.UInt64) for i, band in enumerate(bands)})


def _pairs_of_equal(hashes_N: np.ndarray) -> np.ndarray:
    """Pairs of ranks with equal hashes, packed as lower * 2^32 + higher.

    In a large bucket, a text is paired with the `NEIGHBOURS` before it and with the bucket's first: all pairs would be
    too many, and texts that stay are found by the first.
    """
    hashes = hashes_N
    order = np.argsort(hashes)
    # Most texts share a band with no other; they leave before the second sort.
    equal = hashes[order[1:]] == hashes[order[:-1]]
    order = order[np.append(equal, False) | np.append(False, equal)] if len(order) else order
    # By rank within a bucket, so that the lower rank is the first of a pair.
    order = order[np.lexsort((order, hashes[order]))]
    hashes, order = hashes[order], order.astype(np.uint64)
    found = []
    for lag in range(1, NEIGHBOURS + 1):
        at = np.flatnonzero(hashes[lag:] == hashes[:-lag])
        if not len(at):
            break
        found.append(order[at] << np.uint64(32) | order[at + lag])
    new = np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)]
    index = np.arange(len(hashes))
    # Where the bucket of each position begins.
    start = np.maximum.accumulate(np.where(new, index, 0)) if len(hashes) else index
    far = np.flatnonzero(index - start > NEIGHBOURS)
    return np.concatenate([np.empty(0, np.uint64), *found, order[start[far]] << np.uint64(32) | order[far]])


def _shingles(texts: pl.DataFrame, cleaned: CleanedTexts, words: int, file: Path) -> tuple[Sequences, np.ndarray]:
    """Shingles of some texts in a memory-mapped file, and the place of each text in it."""
    numbered = texts.select("shard", "row").with_row_index("place")
    counts, places = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    with file.open("wb") as out:
        # Shard by shard, so that each file is read once.
        for (number,), rows in numbered.sort("shard", "row").group_by("shard", maintain_order=True):
            content = cleaned.rows(cleaned.shards[number], ["text"])["text"].gather(rows["row"])
            part = hashed_words(match_form(content)).shingles(words).distinct()
            out.write(part.hashes.tobytes())
            counts.append(part.counts)
            places.append(rows["place"].to_numpy())
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    # An empty file cannot be mapped.
    hashes = np.memmap(file, np.uint64, "r") if offsets[-1] else np.empty(0, np.uint64)
    # The inverse permutation: from the order of `texts` to the order of the file.
    return Sequences(hashes, offsets), np.argsort(np.concatenate(places))
