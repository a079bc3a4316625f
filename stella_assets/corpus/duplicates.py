"""Step `duplicates`: equal texts and near copies, found by MinHash and verified; what is left and belongs together.

Texts are ranked by the order of sources, then by id; of two copies the one of lower rank stays. Nothing depends on the
order of files or on where shards end.

Shape legend: N texts left so far by rank, P pairs of them, C texts in some pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import polars as pl

from stella_assets.core.manifest import digest
from stella_assets.core.progress import progress_bar
from stella_assets.core.step import BuildContext, Result, Step, those_of
from stella_assets.corpus.cleaned import (
    KIND,
    Shard,
    as_dropped,
    cleaned_step,
    read_shards,
    write_dropped,
)
from stella_assets.corpus.contamination import CONTAMINATED_FILE, contamination_step
from stella_assets.corpus.words import (
    Sequences,
    band_hashes,
    hashed_words,
    jaccard,
    match_form,
    min_hashes,
    sorted_distinct,
)
from stella_assets.recipe import Deduplicate, Recipe
from storage.shards import ShardStore

CODE_VERSION = "1"
BANDS_KIND = "bands"
LEFT_FILE = "left.parquet"
SEED = 1
NEIGHBOURS = 16
"""Texts that a text is compared with in a bucket of equal bands, beside the bucket's first."""
PAIRS_AT_ONCE = 200_000


def duplicates_step(recipe: Recipe) -> Step:
    """The step that makes `duplicates`."""
    corpus = recipe.corpus
    return Step(
        recipe=recipe.name,
        name="duplicates",
        code_version=CODE_VERSION,
        settings={
            "near": corpus.deduplicate.settings() if corpus.deduplicate else None,
            "order": [source.name for source in corpus.sources],
        },
        needs=those_of(cleaned_step(recipe), contamination_step(recipe) if corpus.decontaminate else None),
        build=lambda context: find_duplicates(corpus.deduplicate, [s.name for s in corpus.sources], context),
    )


def find_duplicates(settings: Deduplicate | None, order: list[str], context: BuildContext) -> Result:
    """Write `left.parquet`: shard, row and group of every text that stays, and `dropped.parquet`.

    Texts of one group belong on one side of the split: a text and what was taken from it, and chains of near copies.
    """
    shards = read_shards(context.inputs["cleaned_texts"].folder)
    cleaned = ShardStore(context.workspace, KIND)
    texts = _ranked(shards, order, cleaned)
    if "contamination" in context.inputs:
        gone = pl.read_parquet(context.inputs["contamination"].folder / CONTAMINATED_FILE)
        texts = texts.join(gone, on=["shard", "row"], how="anti", maintain_order="left")
    first = texts["key"].is_first_distinct()
    equal, texts = texts.filter(~first), texts.filter(first)
    kept = texts.join(equal, on="key", how="semi").select("key", kept="id")
    equal = equal.join(kept, on="key", how="left").with_columns(rule=pl.lit("duplicate"), value=1.0)
    near = _near_copies(texts, shards, settings, context) if settings else _NO_PAIRS
    copy, keeper, similarity = _greedy(near)
    near_copies = texts[copy].with_columns(
        kept=texts["id"].gather(keeper), rule=pl.lit("near duplicate"), value=pl.Series(similarity)
    )
    stays = np.ones(len(texts), bool)
    stays[copy] = False
    left = texts.with_columns(group=_groups(texts, near)).filter(stays)
    left.select("shard", "row", "group").sort("shard", "row").write_parquet(context.folder / LEFT_FILE)
    write_dropped(context, chain(_with_texts(equal, shards, cleaned), _with_texts(near_copies, shards, cleaned)))
    context.log.info(
        f"duplicates: {len(equal):,} equal to another text, {len(near_copies):,} near copies; {len(left):,} left"
    )
    return Result(
        metrics={
            "texts": len(left),
            "duplicates": len(equal),
            "near_duplicates": len(near_copies),
            "near_pairs": len(near.first),
        }
    )


@dataclass(frozen=True)
class Pairs:
    """Near copies.

    Attributes:
        first: `[P]`, the text of lower rank.
        second: `[P]`, the other.
        similarity: `[P]`, Jaccard.
    """

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray


_NO_PAIRS = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


def _ranked(shards: list[Shard], order: list[str], cleaned: ShardStore) -> pl.DataFrame:
    """Every cleaned text by rank; `id` is the first half of its id, `base` that of the text it was taken from."""

    def half(name: str) -> pl.Expr:
        return pl.col(name).str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64)

    parts = [pl.DataFrame(schema=_RANKED)]
    for number, shard in enumerate(shards):
        frame = cleaned.read(shard.key, ["id", "key", "parent", "tie"]).head(shard.kept)
        parts.append(
            frame.select(
                pl.lit(order.index(shard.source), pl.UInt16).alias("source"),
                half("id").alias("id"),
                "tie",
                "key",
                pl.coalesce(half("parent"), half("id")).alias("base"),
                pl.lit(number, pl.UInt32).alias("shard"),
                pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"),
            )
        )
    return pl.concat(parts).sort("source", "id", "tie").drop("source", "tie")


_RANKED = {
    "source": pl.UInt16, "id": pl.UInt64, "tie": pl.UInt64, "key": pl.UInt64, "base": pl.UInt64, "shard": pl.UInt32,
    "row": pl.UInt32,
}  # fmt: skip


def _near_copies(texts: pl.DataFrame, shards: list[Shard], settings: Deduplicate, context: BuildContext) -> Pairs:
    """All pairs that share a band and are as similar as the recipe says."""
    candidates = _candidates(texts, shards, settings, context)
    involved = sorted_distinct(candidates.ravel())
    shingles, place = _shingles(texts, involved, shards, settings, context)
    found = [_NO_PAIRS]
    for start in range(0, len(candidates), PAIRS_AT_ONCE):
        first, second = candidates[start : start + PAIRS_AT_ONCE].T
        at = [place[np.searchsorted(involved, side)] for side in (first, second)]
        counts = [shingles.counts[side] for side in at]
        likely = np.minimum(*counts) >= settings.threshold * np.maximum(*counts)  # others cannot
        first, second, at = first[likely], second[likely], [side[likely] for side in at]
        similarity = jaccard(*(shingles.take(side) for side in at))
        kept = similarity >= settings.threshold
        found.append(Pairs(first[kept], second[kept], similarity[kept]))
    return Pairs(
        *(np.concatenate([getattr(part, name) for part in found]) for name in ("first", "second", "similarity"))
    )


def _candidates(texts: pl.DataFrame, shards: list[Shard], settings: Deduplicate, context: BuildContext) -> np.ndarray:
    """`[P, 2]`: ranks of texts that share a band, the lower one first."""
    store, cleaned = ShardStore(context.workspace, BANDS_KIND), ShardStore(context.workspace, KIND)
    about = digest([CODE_VERSION, settings.settings("threshold"), SEED])
    keys = [f"{shard.key}-{about}" for shard in shards]
    with progress_bar(sum(shard.kept for shard in shards), "duplicates", "texts") as bar:
        for key, shard in zip(keys, shards, strict=True):
            store.ensure(key, partial(_bands, cleaned, shard, settings))
            bar.update(shard.kept)
    starts = np.cumsum([0, *(shard.kept for shard in shards)])
    flat = starts[texts["shard"].to_numpy()] + texts["row"].to_numpy()
    packed = np.empty(0, np.uint64)
    for band in range(settings.bands if keys else 0):
        hashes = store.read_all(keys, [f"band_{band}"]).to_series().to_numpy()
        pairs = _pairs_of_equal(hashes[flat])
        packed = sorted_distinct(np.concatenate([packed, pairs]))
    return np.stack([packed >> np.uint64(32), packed & np.uint64(2**32 - 1)], 1).astype(np.int64)


def _bands(cleaned: ShardStore, shard: Shard, settings: Deduplicate) -> pl.DataFrame:
    texts = cleaned.read(shard.key, ["text"])["text"].head(shard.kept)
    shingles = hashed_words(match_form(texts)).shingles(settings.words)
    bands = band_hashes(min_hashes(shingles, settings.bands * settings.rows, SEED), settings.bands)
    return pl.DataFrame({f"band_{i}": pl.Series(band, dtype=pl.UInt64) for i, band in enumerate(bands)})


def _pairs_of_equal(hashes: np.ndarray) -> np.ndarray:
    """Pairs of ranks with equal hashes, packed as lower * 2^32 + higher.

    In a bucket of many, a text is paired with the `NEIGHBOURS` before it and with the bucket's first.
    """
    order = np.argsort(hashes)
    equal = hashes[order[1:]] == hashes[order[:-1]]
    order = order[np.append(equal, False) | np.append(False, equal)] if len(order) else order
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
    start = np.maximum.accumulate(np.where(new, index, 0)) if len(hashes) else index
    far = np.flatnonzero(index - start > NEIGHBOURS)
    return np.concatenate([np.empty(0, np.uint64), *found, order[start[far]] << np.uint64(32) | order[far]])


def _shingles(
    texts: pl.DataFrame, involved: np.ndarray, shards: list[Shard], settings: Deduplicate, context: BuildContext
) -> tuple[Sequences, np.ndarray]:
    """Shingles of the involved texts in a memory-mapped file, and the place of each text in it."""
    cleaned, file = ShardStore(context.workspace, KIND), context.scratch / "shingles"
    mine = texts.select("shard", "row")[involved].with_row_index("place")
    counts, places = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    with file.open("wb") as out:
        for (number,), rows in mine.sort("shard", "row").group_by("shard", maintain_order=True):
            content = cleaned.read(shards[number].key, ["text"])["text"].gather(rows["row"])
            part = hashed_words(match_form(content)).shingles(settings.words).distinct()
            out.write(part.hashes.tobytes())
            counts.append(part.counts)
            places.append(rows["place"].to_numpy())
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    hashes = np.memmap(file, np.uint64, "r") if offsets[-1] else np.empty(0, np.uint64)
    return Sequences(hashes, offsets), np.argsort(np.concatenate(places))


def _greedy(pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texts that go, the text of lower rank that each is a near copy of and that stays, and how similar they are."""
    gone: dict[int, tuple[int, float]] = {}
    order = np.lexsort((pairs.first, pairs.second))
    rows = zip(pairs.first[order].tolist(), pairs.second[order].tolist(), pairs.similarity[order].tolist(), strict=True)
    for first, second, similarity in rows:  # whether `first` stays was settled before any pair that it comes first in
        if first not in gone and second not in gone:
            gone[second] = (first, similarity)
    copies = np.fromiter(gone, np.int64, len(gone))
    keepers = np.fromiter((keeper for keeper, _ in gone.values()), np.int64, len(gone))
    return copies, keepers, np.fromiter((value for _, value in gone.values()), np.float64, len(gone))


def _groups(texts: pl.DataFrame, pairs: Pairs) -> pl.Series:
    """`[N]` uint64: the same for texts with one base, and for those that chains of near copies join."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    bases = texts["base"].to_numpy()
    known, edges = np.unique(np.stack([bases[pairs.first], bases[pairs.second]]), return_inverse=True)
    first, second = edges.reshape(2, -1)
    graph = coo_matrix((np.ones(len(first), bool), (first, second)), shape=(len(known), len(known)))
    _, component = connected_components(graph, directed=False)
    smallest = np.full(len(known), np.iinfo(np.uint64).max)
    np.minimum.at(smallest, component, known)
    at = np.minimum(np.searchsorted(known, bases), max(len(known) - 1, 0))
    if len(known):
        joined = known[at] == bases
        bases = np.where(joined, smallest[component[at]], bases)
    return pl.Series(bases, dtype=pl.UInt64)


def _with_texts(copies: pl.DataFrame, shards: list[Shard], cleaned: ShardStore) -> Iterator[pl.DataFrame]:
    """What is dropped, with what the shards know of it."""
    for (number,), rows in copies.group_by("shard", maintain_order=True):
        shard = shards[number]
        texts = cleaned.read(shard.key, ["id", "text", "section", "role", "origin"])[rows["row"].to_numpy()]
        kept = [f"copy of {number:016x}" for number in rows["kept"]]
        about = [pl.Series("detail", kept), rows["rule"], rows["value"]]
        yield as_dropped(texts.with_columns(about).with_columns(source=pl.lit(shard.source)))
