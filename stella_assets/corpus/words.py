"""Texts as sequences of hashed words, by which duplicates and contamination are found.

Shape legend: T texts, W words of all of them, G word sequences of all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xxhash

from stella_assets.storage.polars import pl

# 2^64 divided by the golden ratio, and odd: multiplying by it loses no bits modulo 2^64.
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
# Of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
FINALISER = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
NO_WORD = r"[^\p{L}\p{M}\p{N}]+"
WRITTEN_WITHOUT_BLANKS = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])"


def match_form(texts: pl.Series) -> pl.Series:
    """Texts without case, punctuation and spacing: words in lower case, separated by blanks.

    Characters of scripts that put no blanks between words count as words. A text without any word is its own form.

    Example:
        >>> match_form(pl.Series(["Déjà-vu, 東京!", "***"])).to_list()
        ['déjà vu 東 京', '***']
    """
    # NFKC, unlike the NFC of texts: full-width letters and ligatures compare equal to plain ones.
    form = (
        texts.str.normalize("NFKC")
        .str.to_lowercase()
        .str.replace_all(WRITTEN_WITHOUT_BLANKS, " $1 ")
        .str.replace_all(NO_WORD, " ")
        .str.strip_chars(" ")
    )
    # Otherwise all texts without a word would be equal to each other.
    return form.zip_with(form != "", texts)


def match_keys(forms: pl.Series) -> np.ndarray:
    """`[T]` uint64: texts with equal forms have equal keys."""
    # Not Python's `hash`, which differs from process to process: the keys are stored.
    return np.fromiter((xxhash.xxh3_64_intdigest(form.encode()) for form in forms), np.uint64, len(forms))


@dataclass(frozen=True)
class Sequences:
    """Hashes of all texts one after another.

    Attributes:
        hashes: `[G]` uint64.
        offsets: `[T + 1]` int64; text t has `hashes[offsets[t]:offsets[t + 1]]`.
    """

    hashes: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> np.ndarray:
        """`[T]`: hashes of each text."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> np.ndarray:
        """`[G]`: which text a hash belongs to."""
        return np.repeat(np.arange(len(self)), self.counts)

    def windows(self, length: int) -> Sequences:
        """Every `length` successive hashes as one; a shorter text has none."""
        *_, last = self.windows_up_to(length)
        return last

    def windows_up_to(self, longest: int) -> Iterator[Sequences]:
        """`windows(1)`, `windows(2)` and so on, each made from the one before."""
        # A polynomial hash of all positions at once, h_n(i) = M h_(n-1)(i) + w(i + n - 1) modulo 2^64; uint64 wraps.
        # `left`, the hashes to the end of the text, masks windows that reach into the next text.
        left = np.repeat(self.offsets[1:], self.counts) - np.arange(len(self.hashes))
        combined = np.zeros(len(self.hashes), np.uint64)
        for length in range(1, longest + 1):
            combined *= MULTIPLIER
            combined[: max(len(combined) - length + 1, 0)] += self.hashes[length - 1 :]
            sizes = np.maximum(self.counts - length + 1, 0)
            # Scrambled on the way out only: the recurrence needs the plain sums.
            yield Sequences(scrambled(combined[left >= length]), np.concatenate([[0], np.cumsum(sizes)]))

    def shingles(self, length: int) -> Sequences:
        """`windows`, but a shorter text has one sequence of all its hashes."""
        windows = self.windows(length)
        short = np.flatnonzero((self.counts < length) & (self.counts > 0))
        whole = np.zeros(len(short), np.uint64)
        # By size, which is below `length`, instead of text by text.
        for size in np.unique(self.counts[short]):
            chosen = self.counts[short] == size
            whole[chosen] = self.take(short[chosen]).windows(int(size)).hashes
        counts = windows.counts
        counts[short] = 1
        hashes = np.insert(windows.hashes, windows.offsets[short], whole)
        return Sequences(hashes, np.concatenate([[0], np.cumsum(counts)]))

    def joined(self, other: Sequences) -> Sequences:
        """The hashes of both, text by text."""
        # A stable sort by text keeps the order within each text.
        order = np.argsort(np.concatenate([self.owners, other.owners]), kind="stable")
        return Sequences(np.concatenate([self.hashes, other.hashes])[order], self.offsets + other.offsets)

    def distinct(self) -> Sequences:
        """Each text's hashes once, ascending."""
        owners = self.owners
        # By text, then by hash: the last key of `lexsort` is the first to count.
        order = np.lexsort((self.hashes, owners))
        hashes, owners = self.hashes[order], owners[order]
        first = np.ones(len(hashes), bool)
        first[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
        counts = np.bincount(owners[first], minlength=len(self))
        return Sequences(hashes[first], np.concatenate([[0], np.cumsum(counts)]))

    def take(self, texts: np.ndarray) -> Sequences:
        """Some of the texts, in the order given."""
        counts = self.counts[texts]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        # `[G]` places to copy from: places in the result, moved to where each text begins here.
        at = np.arange(offsets[-1]) + np.repeat(self.offsets[texts] - offsets[:-1], counts)
        return Sequences(self.hashes[at], offsets)


def hashed_words(forms: pl.Series) -> Sequences:
    """The words of each form; every distinct word is hashed once."""
    words = forms.str.split(" ")
    # A text collection has far fewer distinct words than words; Python's loop sees only the distinct ones.
    encoded = words.explode().to_arrow().dictionary_encode()
    known = (xxhash.xxh3_64_intdigest(word.encode()) for word in encoded.dictionary.to_pylist())
    hashes = np.fromiter(known, np.uint64, len(encoded.dictionary))
    offsets = np.concatenate([[0], np.cumsum(words.list.len().to_numpy())]).astype(np.int64)
    return Sequences(hashes[encoded.indices.to_numpy()], offsets)


def scrambled(hashes: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64: sums of hashes spread over all bits."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * FINALISER[0]
    hashes = (hashes ^ (hashes >> np.uint64(27))) * FINALISER[1]
    return hashes ^ (hashes >> np.uint64(31))


def is_shared(a: Sequences, b: Sequences) -> np.ndarray:
    """`[G of a]`: whether the t-th text of `b` has the hash too; both hold distinct hashes, ascending."""
    _, places = _common(a, b)
    found = np.zeros(len(a.hashes), bool)
    found[places] = True
    return found


def jaccard(a: Sequences, b: Sequences) -> np.ndarray:
    """`[T]`: size of the intersection by size of the union, pair by pair; both hold distinct hashes, ascending."""
    common, _ = _common(a, b)
    return common / np.maximum(a.counts + b.counts - common, 1)


def _common(a: Sequences, b: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """How many hashes the t-th texts share, and where in `a` these are: rows of sparse matrices, merged."""
    from scipy.sparse import csr_matrix

    if not len(a.hashes) or not len(b.hashes):
        return np.zeros(len(a), np.int64), np.empty(0, np.int64)

    def matrix(sequences: Sequences, data: np.ndarray) -> csr_matrix:
        # scipy's column indices are signed, so one bit goes; 63 bits tell the words of two texts apart.
        columns = (sequences.hashes >> np.uint64(1)).astype(np.int64)
        rows = csr_matrix((data, columns, sequences.offsets), (len(sequences), np.iinfo(np.int64).max))
        # Columns are sorted and distinct. Unless told so, scipy would make a vector of the matrix' width.
        rows.has_canonical_format = True
        return rows

    # Places count from 1, since scipy leaves products of 0 out of the result.
    both = matrix(a, np.arange(1, len(a.hashes) + 1)).multiply(matrix(b, np.ones(len(b.hashes), np.int64)))
    return np.diff(both.indptr), both.data - 1


def sorted_distinct(values: np.ndarray) -> np.ndarray:
    """Each value once, ascending: numpy sorts many integers faster than its `unique` hashes them."""
    values = np.sort(values)
    return values[np.append(True, values[1:] != values[:-1])[: len(values)]]


def min_hashes(sequences: Sequences, size: int, seed: int) -> np.ndarray:
    """`[T, size]` uint32 MinHash signatures, by rensa's R-MinHash. The minimum of two is the signature of the union.

    Args:
        sequences: Hashes of each text; repeated hashes do not matter.
        size: Values per signature.
        seed: Signatures can be compared only under one seed.

    References:
        Broder, On the resemblance and containment of documents, SEQUENCES 1997.
    """
    from rensa import RMinHash

    hashes, offsets = np.ascontiguousarray(sequences.hashes), sequences.offsets.astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, size, seed)
    return np.array(matrix.to_rows(), np.uint32).reshape(len(sequences), size)


def band_hashes(signatures: np.ndarray, bands: int) -> np.ndarray:
    """`[bands, T]` uint64: one hash for the rows of each band.

    Args:
        signatures: `[T, size]`, of `min_hashes`.
        bands: A divisor of `size`.
    """
    rows = signatures.reshape(len(signatures), bands, signatures.shape[1] // bands).astype(np.uint64)
    combined = np.zeros(rows.shape[:2], np.uint64)
    for row in range(rows.shape[2]):
        combined = combined * MULTIPLIER + rows[:, :, row] + np.uint64(1)
    return scrambled(combined).T
