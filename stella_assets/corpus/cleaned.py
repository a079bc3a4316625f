"""Step `cleaned_texts`: every source read, its texts repaired and judged, shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stella_assets.core.config import ModelSource
from stella_assets.core.progress import progress_bar
from stella_assets.core.step import BuildContext, Presentation, Result, Step
from stella_assets.corpus.dropped import no_dropped, show_dropped, write_dropped
from stella_assets.corpus.errors import SourceError
from stella_assets.corpus.settings import CorpusSettings
from stella_assets.corpus.shards import SHARDS_FILE, CleanedTexts, Shard, shard_table
from stella_assets.corpus.source_reader import CODE_VERSION, MALFORMED, UNREADABLE, SourceReader, tokenizer_version
from stella_assets.corpus.sources import SourceConfig
from stella_assets.corpus.sources.base import shrink
from stella_assets.storage.polars import pl


def cleaned_step(recipe: str, *, corpus: CorpusSettings, tokenizer: ModelSource) -> Step[CleanedTexts]:
    """The step that makes `cleaned_texts`.

    Args:
        recipe: Name of the recipe.
        corpus: Gives the sources and the rules.
        tokenizer: Counts tokens, if a rule limits them.
    """

    def build(context: BuildContext) -> Result:
        reader = SourceReader(corpus.clean, tokenizer, context.workspace)
        return clean_texts(corpus.sources, reader, context)

    return Step(
        recipe=recipe,
        name="cleaned_texts",
        code_version=CODE_VERSION,
        settings={
            # Without weights: a changed weight reads and cleans nothing again.
            "sources": [source.reading_settings() for source in corpus.sources],
            "clean": corpus.clean.settings(),
        },
        external_versions=lambda _workspace: {
            **{source.name: source.content_digest() for source in corpus.sources},
            **tokenizer_version(corpus.clean, tokenizer),
        },
        build=build,
        read=CleanedTexts.open,
        # Shards lie outside the artefact's folder, where garbage collection may have removed them.
        is_available=lambda artefact, workspace: CleanedTexts.open(artefact, workspace).are_stored(),
        presentation=Presentation(
            group="corpus",
            kinds=frozenset({"polars", "parquet"}),
            description="Every source read, its texts repaired and judged by the rules of their role, shard by shard.",
            show=show_dropped,
        ),
    )


def clean_texts(sources: Sequence[SourceConfig], reader: SourceReader, context: BuildContext) -> Result:
    """Write `shards.parquet`, which names the shards, and `dropped.parquet`, what was not kept and why.

    Args:
        sources: In the order of the recipe, which is the order of the shards.
        reader: Reads and cleans, or finds what was read before.
        context: Of the step that is built.

    Returns:
        Counts of texts and shards, as metrics.

    Raises:
        SourceError: A source cannot be read, or more of it is malformed than the recipe allows.
    """
    shards: list[Shard] = []
    dropped: list[pl.DataFrame] = []
    with progress_bar(0, "cleaned_texts", "texts") as bar:
        for source in sources:
            found, not_kept = read_source(source, reader, bar.update)
            read, kept = sum(shard.read for shard in found), sum(shard.kept for shard in found)
            context.log.info(f"cleaned_texts: {kept:,} of {read:,} texts kept of source {source.name}")
            if remark := shrink(source.name, reader.rows[source.name], reader.lines[source.name]):
                context.log.warning(f"cleaned_texts: {remark}")
            shards += found
            dropped.append(not_kept)
    shard_table(shards).write_parquet(context.folder / SHARDS_FILE)
    write_dropped(dropped, context.folder, context.scratch)
    return Result(
        metrics={
            "texts": sum(shard.kept for shard in shards),
            "read": sum(shard.read for shard in shards),
            "malformed": sum(int(frame["rule"].is_in([MALFORMED, UNREADABLE]).sum()) for frame in dropped),
            "shards": len(shards),
            "shards_reused": reader.reused,
        }
    )


def read_source(
    source: SourceConfig, reader: SourceReader, on_texts: Callable[[int], object]
) -> tuple[list[Shard], pl.DataFrame]:
    """The shards of a source, and its texts that were not kept.

    Args:
        source: The source, pinned or not.
        reader: Reads and cleans, or finds what was read before.
        on_texts: Is told how many texts were read, shard by shard.

    Raises:
        SourceError: It cannot be read, or more of it is malformed than the recipe allows.
    """
    # Pinned first: a table or a branch may move while it is read.
    source = source.pinned()
    parts = source.parts()
    shards: list[Shard] = []
    dropped = [no_dropped()]
    for part in parts:
        found, not_kept = reader.read(source, part, on_texts)
        shards += found
        dropped.append(not_kept)
    all_dropped = pl.concat(dropped)
    files = sum(len(part.paths) for part in parts)
    _require_few_malformed(source, sum(shard.read for shard in shards), files, all_dropped)
    return shards, all_dropped


def _require_few_malformed(source: SourceConfig, read: int, files: int, dropped: pl.DataFrame) -> None:
    limit = source.malformed_limit()
    if limit is None:
        return
    # An unreadable file is one row of `read`, but counts as a file and not as a malformed row.
    rows, broken_files = (dropped.filter(pl.col("rule") == rule) for rule in (MALFORMED, UNREADABLE))
    for what, bad, total in (("rows", rows, read - len(broken_files)), ("files", broken_files, files)):
        # A share, and not a count: one bad row in a million must not stop a run of hours.
        if len(bad) > limit * max(total, 1):
            first = bad.row(0, named=True)
            raise SourceError(
                f"source {source.name!r}: {len(bad):,} of {total:,} {what} are malformed, the recipe allows "
                f"{limit:.2%}; the first is {first['origin']}: {first['detail']}.",
                "Correct the data, or raise `max_malformed`.",
            )
