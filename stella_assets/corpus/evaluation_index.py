"""Finding evaluation texts in other texts: equal, one inside the other, or near copies.

Shape legend: T texts that are searched, E evaluation texts, G word sequences.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from stella_assets.corpus.settings import Decontaminate
from stella_assets.corpus.words import (
    Sequences,
    band_hashes,
    hashed_words,
    is_shared,
    jaccard,
    match_form,
    match_keys,
    min_hashes,
)
from stella_assets.storage.polars import pl

# A pair of Jaccard similarity s becomes a candidate with probability 1 - (1 - s^ROWS)^BANDS.
BANDS, ROWS, SEED = 50, 4, 1
"""96% of the pairs with a similarity of 0.5 become candidates, 99.9% of those with 0.6."""
BANDS_SETTINGS = [BANDS, ROWS, SEED]
"""What decides the bands of a text, in the key that they are stored under."""
MIN_INFORMATION = 0.76
"""A near copy keeps this share of the information in an evaluation text's words: a changed name is another request."""
MIN_BITS = 27.0
"""A short text inside a longer one counts when chance does not explain it: drawn word by word, once in 2^27 draws."""
FEWEST_WORDS = 2**16
"""Fewer words than this say little about which are frequent. All then count as rare, so that more is found."""
FILTER_BITS = 4
"""Bits of the filter beyond those that count the hashes: at most one of sixteen other hashes passes it."""
MATCHES = pa.schema({"row": pa.uint32(), "evaluation": pa.uint32(), "rule": pa.string(), "value": pa.float64()})
RULES = ("equal", "contained", "near copy")


def no_matches() -> pl.DataFrame:
    """A frame with the schema `MATCHES` and no rows."""
    return pl.DataFrame(schema=pl.Schema(MATCHES))


class Lookup:
    """From hashes to the evaluation texts that have them. A bitmap first rejects most hashes of other texts.

    Args:
        sequences: Hashes of each text.
        owners: `[T]`, the evaluation text that each text's hashes stand for.
    """

    def __init__(self, sequences: Sequences, owners: np.ndarray) -> None:
        by = np.repeat(owners, sequences.counts)
        order = np.argsort(sequences.hashes)
        self._hashes, self._owners = sequences.hashes[order], by[order]
        # The bitmap is indexed by the leading bits of a hash. One random access rejects most hashes; a binary search
        # needs about log2 of the number of hashes.
        self._shift = np.uint64(64 - FILTER_BITS - max(len(self._hashes), 1).bit_length())
        self._bitmap = np.zeros(2 ** (64 - int(self._shift)), bool)
        self._bitmap[self._hashes >> self._shift] = True

    def find(self, sequences: Sequences) -> pl.DataFrame:
        """`row`, `evaluation` and `hash` for every hash that both have."""
        at = np.flatnonzero(self._bitmap[sequences.hashes >> self._shift])
        hashes = sequences.hashes[at]
        left = np.searchsorted(self._hashes, hashes, side="left")
        counts = np.searchsorted(self._hashes, hashes, side="right") - left
        texts = np.searchsorted(sequences.offsets, at, side="right") - 1
        # Each hash that was found becomes `counts` rows; `within` numbers them from 0 inside each run.
        ends = np.cumsum(counts)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
        owners = self._owners[np.repeat(left, counts) + within]
        return pl.DataFrame({"row": np.repeat(texts, counts), "evaluation": owners, "hash": np.repeat(hashes, counts)})


class EvaluationIndex:
    """Evaluation texts, ready to be found in other texts.

    Args:
        texts: The evaluation texts; matches name them by their places here.
        settings: What counts as a match.
        bands: `evaluation_bands(texts)`, if they were computed before.

    Attributes:
        words: Length of the word sequences that texts are compared by.
        lengths: `[E]`, words of each evaluation text.
    """

    def __init__(self, texts: pl.Series, settings: Decontaminate, bands: pl.DataFrame | None = None) -> None:
        self.words = settings.words
        self._settings = settings
        forms = match_form(texts)
        words = hashed_words(forms)
        one_each, everyone = np.arange(len(texts) + 1), np.arange(len(texts))
        self.lengths = words.counts
        self._keys = Lookup(Sequences(match_keys(forms), one_each), everyone)
        self._bits = _word_bits(words)
        # Shorter texts that chance explains would be found everywhere; they are compared for equality only.
        telling = self._total_bits(words) >= MIN_BITS
        self._windows = {}
        # `[E]`, sequences to find; a text of fewer than `words` words is a single one. A repeated sequence counts once.
        self._distinct = np.maximum(words.windows(settings.words).distinct().counts, 1)
        for length, windows in enumerate(words.windows_up_to(settings.words), 1):
            # A text shorter than `words` is one window of its own length and must occur as a whole.
            wanted = (self.lengths == length) & telling if length < settings.words else self.lengths >= length
            chosen = np.flatnonzero(wanted)
            if len(chosen):
                self._windows[length] = Lookup(windows.take(chosen), chosen)
        self._words = words
        bands = evaluation_bands(texts) if bands is None else bands
        self._bands = [Lookup(Sequences(band.to_numpy(), one_each), everyone) for band in bands]

    def find(self, forms: pl.Series) -> pl.DataFrame:
        """Every pair of a text and an evaluation text that it contains, is a part of or is a copy of.

        A text of fewer than `words` words is not searched for inside longer evaluation texts.

        Args:
            forms: Texts in the form that `match_form` gives.

        Returns:
            A frame with the schema `MATCHES`; `row` counts in `forms`, `evaluation` in the evaluation texts. Each pair
            occurs once, under the first of `RULES`. `value` is 1, the share of the shorter text's word sequences, or
            the Jaccard similarity of words and word pairs.
        """
        words = hashed_words(forms)
        # In the order of `RULES`: `unique` keeps the first, which is the strongest reason.
        parts = [self._equal(forms), self._contained(words), self._near(words)]
        return pl.concat(parts).unique(["row", "evaluation"], keep="first", maintain_order=True)

    def _equal(self, forms: pl.Series) -> pl.DataFrame:
        found = self._keys.find(Sequences(match_keys(forms), np.arange(len(forms) + 1)))
        return _matches(found["row"].to_numpy(), found["evaluation"].to_numpy(), "equal", np.ones(len(found)))

    def _contained(self, words: Sequences) -> pl.DataFrame:
        size = self.words
        windows = enumerate(words.windows_up_to(size), 1)
        found = [self._windows[length].find(part) for length, part in windows if length in self._windows]
        # Evaluation texts that chance explains have no sequences to find.
        if not found:
            return no_matches()
        counted = pl.concat(found).unique().group_by(["row", "evaluation"]).len().sort("row", "evaluation")
        texts, owners = counted["row"].to_numpy(), counted["evaluation"].to_numpy()
        # `len` counts distinct sequences, so it is compared with distinct ones, of the texts that share any.
        sharing, at = np.unique(texts, return_inverse=True)
        distinct = np.maximum(words.take(sharing).windows(size).distinct().counts, 1)
        share = np.minimum(counted["len"].to_numpy() / np.minimum(distinct[at], self._distinct[owners]), 1.0)
        kept = share >= self._settings.containment
        return _matches(texts[kept], owners[kept], "contained", share[kept])

    def _near(self, words: Sequences) -> pl.DataFrame:
        one_each = np.arange(len(words) + 1)
        found = [
            lookup.find(Sequences(band, one_each)) for lookup, band in zip(self._bands, _bands(words), strict=True)
        ]
        pairs = pl.concat(found).select("row", "evaluation").unique().sort("row", "evaluation")
        texts, owners = pairs["row"].to_numpy(), pairs["evaluation"].to_numpy()
        # Words alone do not tell requests apart that differ in one name; the name carries most of the information.
        kept = self._information_shared(words.take(texts), self._words.take(owners)) >= MIN_INFORMATION
        texts, owners = texts[kept], owners[kept]
        similarity = jaccard(_word_sets(words.take(texts)), _word_sets(self._words.take(owners)))
        kept = similarity >= self._settings.similarity
        return _matches(texts[kept], owners[kept], "near copy", similarity[kept])

    def _information_shared(self, ours: Sequences, theirs: Sequences) -> np.ndarray:
        """Share of an evaluation text's information that is in words of the other text, pair by pair."""
        ours, theirs = ours.distinct(), theirs.distinct()
        return self._total_bits(theirs, is_shared(theirs, ours)) / np.maximum(self._total_bits(theirs), 1e-9)

    def _total_bits(self, words: Sequences, chosen: np.ndarray | None = None) -> np.ndarray:
        """`[T]`: minus the binary logarithm of the probability of (the chosen) words, were they drawn one by one."""
        known, bits = self._bits
        # Only words of evaluation texts are asked for, so `known` has each of them.
        each = bits[np.searchsorted(known, words.hashes)]
        return np.bincount(words.owners, each if chosen is None else each * chosen, minlength=len(words))


def evaluation_bands(texts: pl.Series) -> pl.DataFrame:
    """Bands of the evaluation texts, one column per band."""
    bands = _bands(hashed_words(match_form(texts)))
    return pl.DataFrame({f"band_{i}": pl.Series(band, dtype=pl.UInt64) for i, band in enumerate(bands)})


def _word_sets(words: Sequences) -> Sequences:
    """Each text's words and pairs of words, once: short near copies still share these."""
    return words.windows(1).joined(words.windows(2)).distinct()


def _bands(words: Sequences) -> np.ndarray:
    """`[BANDS, T]`: bands of the MinHash signatures of `_word_sets`."""
    # The minimum of two signatures is that of the union, so the sets need not be built.
    signatures = [min_hashes(windows, BANDS * ROWS, SEED) for windows in words.windows_up_to(2)]
    return band_hashes(np.minimum(*signatures), BANDS)


def _word_bits(words: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Distinct words, ascending, and minus the binary logarithm of how often each occurs."""
    known, counts = np.unique(words.hashes, return_counts=True)
    return known, -np.log2(counts / max(counts.sum(), FEWEST_WORDS))


def _matches(texts: np.ndarray, owners: np.ndarray, rule: str, values: np.ndarray) -> pl.DataFrame:
    rows = {"row": texts.astype(np.uint32), "evaluation": owners.astype(np.uint32), "rule": rule, "value": values}
    return pl.DataFrame(rows, schema=pl.Schema(MATCHES))
