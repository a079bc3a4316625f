"""A short look at the sources: how many texts they have, and some of them, before anything is made."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stella_assets.core.step import Size
from stella_assets.corpus.settings import CorpusSettings
from stella_assets.corpus.sources import RawText, SourceConfig

LOOK_SECONDS = 3.0
"""How long the texts of all sources are counted; what is left is estimated from the sizes of files."""
SAMPLE = 192


@dataclass(frozen=True)
class Looked:
    """The texts of a source.

    Attributes:
        texts: How many, before any is dropped; 0 where nothing tells.
        sample: Some of them.
    """

    texts: int
    sample: list[RawText]

    @property
    def mean_bytes(self) -> float:
        """Of a text."""
        return sum(len(row.text.encode()) for row in self.sample) / max(1, len(self.sample))

    @property
    def related(self) -> float:
        """Share of the texts that answer a query, or have a score with one: each stands for a pair."""
        found = sum(row.related is not None and not row.related.negative for row in self.sample)
        return found / max(1, len(self.sample))


def look(corpus: CorpusSettings) -> list[Looked]:
    """Count the texts of each source for a few seconds, and draw some."""
    return [_look_at(source, LOOK_SECONDS / len(corpus.sources)) for source in corpus.sources]


def expected_size(corpus: CorpusSettings, looked: Sequence[Looked], kept: float = 1.0) -> Size | None:
    """How many texts the corpus would have; None where a source does not tell.

    Args:
        corpus: Its limits and splits.
        looked: Its sources.
        kept: Share of their texts that cleaning and the search for near copies keep.
    """
    if not all(each.texts for each in looked):
        return None
    # A limit is of the texts that are kept.
    counts = [round(each.texts * kept) for each in looked]
    limits = [source.limit for source in corpus.sources]
    counts = [min(count, limit or count) for count, limit in zip(counts, limits, strict=True)]
    split, texts = _split(corpus, sum(counts)), max(1, sum(counts))
    size = sum(count * each.mean_bytes for count, each in zip(counts, looked, strict=True))
    related = sum(count * each.related for count, each in zip(counts, looked, strict=True))
    return replace(split, mean_bytes=size / texts, pairs=round(related * split.train / texts))


def largest_size(corpus: CorpusSettings) -> Size | None:
    """How many texts the corpus would have at most, by the limits of its sources; None where one has none."""
    limits = [source.limit for source in corpus.sources]
    return _split(corpus, sum(limit or 0 for limit in limits)) if all(limits) else None


def _split(corpus: CorpusSettings, texts: int) -> Size:
    dev, test = round(texts * corpus.dev), round(texts * corpus.test)
    return Size(texts, texts - dev - test, dev, test)


def _look_at(source: SourceConfig, seconds: float) -> Looked:
    source, drawn, count, size = source.pinned(), random.Random(0), 0, 0
    sample: list[RawText] = []
    until, parts = time.monotonic() + seconds, source.parts()
    complete = True
    for row in (row for part in parts for row in source.texts(part)):
        if not isinstance(row, RawText):
            continue
        count, size = count + 1, size + len(row.text.encode())
        # Each text is in the sample with the same probability, however many there are.
        place = count - 1 if count <= SAMPLE * 4 else drawn.randrange(count)
        if place < SAMPLE * 4:
            sample[place : place + 1] = [row]
        if count >= SAMPLE and time.monotonic() > until:
            complete = False
            break
    if count and not complete:
        stored = sum(path.stat().st_size for part in parts for path in part.paths)
        # Too many where files have other columns; without files only a limit tells.
        # Such a source is counted to be so long that its limit is reached.
        count = max(count, round(stored * count / max(1, size))) if stored else 2 * max(count, source.limit or 0)
        count = count if stored or source.limit else 0
    return Looked(round(count * source.weight), sample)
