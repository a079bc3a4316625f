"""Step `duplicates`: equal texts and near copies are removed; the texts that stay, and which of them belong together.

Texts are ranked by the order of sources, then by id. Of two copies the text of lower rank stays. The result does not
depend on the order of files or on where shards end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from stella_assets.core.step import BuildContext, Presentation, Result, Step, from_folder
from stella_assets.corpus.contamination import Contamination
from stella_assets.corpus.dropped import as_dropped, show_dropped, write_dropped
from stella_assets.corpus.near_copies import NO_PAIRS, choose_copies, near_copies, split_groups
from stella_assets.corpus.settings import Deduplicate
from stella_assets.corpus.shards import CleanedTexts
from stella_assets.storage.polars import pl

CODE_VERSION = "2"
LEFT_FILE = "left.parquet"


@dataclass(frozen=True)
class Duplicates:
    """What is left after equal texts and near copies were removed.

    Attributes:
        folder: Of the artefact.
    """

    folder: Path

    def left(self) -> pl.DataFrame:
        """`shard` (its number), `row` and `group` of each text that stays; a group belongs to one split."""
        return pl.read_parquet(self.folder / LEFT_FILE)


def duplicates_step(
    recipe: str,
    *,
    deduplicate: Deduplicate | None,
    sources: Sequence[str],
    cleaned: Step[CleanedTexts],
    contamination: Step[Contamination] | None,
) -> Step[Duplicates]:
    """The step that makes `duplicates`.

    Args:
        recipe: Name of the recipe.
        deduplicate: What counts as a near copy; None to remove equal texts only.
        sources: Names of the sources; an earlier source keeps its text.
        cleaned: The texts.
        contamination: Which of them are removed before; None where no evaluation sets are named.
    """

    def build(context: BuildContext) -> Result:
        texts = context.read(cleaned)
        removed = context.read(contamination).removed() if contamination else None
        result = find_duplicates(texts, deduplicate, sources, removed, context.folder, context.scratch)
        metrics = result.metrics
        context.log.info(
            f"duplicates: {metrics['duplicates']:,} equal to another text, {metrics['near_duplicates']:,} near copies; "
            f"{metrics['texts']:,} left"
        )
        return result

    return Step(
        recipe=recipe,
        name="duplicates",
        code_version=CODE_VERSION,
        settings={"near": deduplicate.settings() if deduplicate else None, "order": list(sources)},
        dependencies=(cleaned, contamination) if contamination else (cleaned,),
        build=build,
        read=from_folder(Duplicates),
        presentation=Presentation(
            group="corpus",
            kinds=frozenset({"polars", "parquet"}),
            description="Equal texts and near copies across sources: [MinHash](https://arxiv.org/abs/2107.06499), "
            "verified by exact Jaccard similarity.",
            show=show_dropped,
        ),
    )


def find_duplicates(
    cleaned: CleanedTexts,
    settings: Deduplicate | None,
    order: Sequence[str],
    removed: pl.DataFrame | None,
    folder: Path,
    scratch: Path,
) -> Result:
    """Write `left.parquet`: shard, row and group of every text that stays, and `dropped.parquet`.

    Texts of one group belong to one split: a text and what was taken from it, and chains of copies.

    Args:
        cleaned: The texts.
        settings: What counts as a near copy; None to remove equal texts only.
        order: Names of the sources; an earlier source keeps its text.
        removed: `shard` and `row` of texts that are not considered.
        folder: Of the artefact.
        scratch: For temporary files.

    Returns:
        How many texts are left and how many were removed, as metrics.

    References:
        Deduplicating Training Data Makes Language Models Better, arXiv 2107.06499, section 4.2.
    """
    texts = _ranked(cleaned, order)
    # Before the search for copies: a text that is removed anyway must not be the copy that stays.
    if removed is not None:
        texts = texts.join(removed, on=["shard", "row"], how="anti", maintain_order="left")
    # Rows are in the order of ranks, so the first of equal keys is the one that stays.
    first = texts["key"].is_first_distinct()
    equal, texts = texts.filter(~first), texts.filter(first)
    kept = texts.join(equal, on="key", how="semi").select("key", kept="id", kept_base="base")
    equal = equal.join(kept, on="key", how="left").with_columns(rule=pl.lit("duplicate"), value=1.0)
    near = near_copies(texts, cleaned, settings, scratch) if settings else NO_PAIRS
    copy, keeper, similarity = choose_copies(near)
    copies = texts[copy].with_columns(
        kept=texts["id"].gather(keeper), rule=pl.lit("near duplicate"), value=pl.Series(similarity)
    )
    stays = np.ones(len(texts), bool)
    stays[copy] = False
    # Groups are formed with the copies: a copy that is removed can link two texts that stay, and so can an equal text,
    # from which others may have been taken.
    equal_bases = equal.select("kept_base", "base").to_numpy().T
    left = texts.with_columns(group=split_groups(texts["base"].to_numpy(), near, equal_bases)).filter(stays)
    # Later steps go shard by shard.
    left.select("shard", "row", "group").sort("shard", "row").write_parquet(folder / LEFT_FILE)
    write_dropped(chain(_with_texts(equal, cleaned), _with_texts(copies, cleaned)), folder, scratch)
    return Result(
        metrics={
            "texts": len(left),
            "duplicates": len(equal),
            "near_duplicates": len(copies),
            "near_pairs": len(near.first),
        }
    )


def _ranked(cleaned: CleanedTexts, order: Sequence[str]) -> pl.DataFrame:
    """Every cleaned text by rank; `id` is the first half of its id, `base` that of the text that it was taken from."""

    # 64 bits halve the memory. Among 10^9 texts a collision is 3% likely; it would only join two split groups.
    def half(name: str) -> pl.Expr:
        return pl.col(name).str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64)

    parts = [pl.DataFrame(schema=pl.Schema(_RANKED))]
    for number, shard in enumerate(cleaned.shards):
        parts.append(
            cleaned.rows(shard, ["id", "key", "parent", "tie"]).select(
                pl.lit(list(order).index(shard.source), pl.UInt16).alias("source"),
                half("id").alias("id"),
                "tie",
                "key",
                pl.coalesce(half("parent"), half("id")).alias("base"),
                pl.lit(number, pl.UInt32).alias("shard"),
                pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"),
            )
        )
    # `tie` orders equal texts of one source, so that shards do not decide which of them stays.
    return pl.concat(parts).sort("source", "id", "tie").drop("source", "tie")


_RANKED = pa.schema({
    "source": pa.uint16(), "id": pa.uint64(), "tie": pa.uint64(), "key": pa.uint64(), "base": pa.uint64(),
    "shard": pa.uint32(), "row": pa.uint32(),
})  # fmt: skip


def _with_texts(copies: pl.DataFrame, cleaned: CleanedTexts) -> Iterator[pl.DataFrame]:
    """What is dropped, with what the shards know about it."""
    for (number,), rows in copies.group_by("shard", maintain_order=True):
        shard = cleaned.shards[number]
        texts = cleaned.rows(shard, ["id", "text", "section", "role", "origin"])[rows["row"].to_numpy()]
        kept = [f"copy of {key:016x}" for key in rows["kept"]]
        columns = [pl.Series("detail", kept), rows["rule"], rows["value"]]
        yield as_dropped(texts.with_columns(columns).with_columns(source=pl.lit(shard.source)))
