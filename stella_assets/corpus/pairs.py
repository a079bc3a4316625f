"""Step `pairs`: queries and what answers them, or scored pairs, of the texts that the corpus has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from stella_assets.core.manifest import Check
from stella_assets.core.present import Rows, Shown
from stella_assets.core.progress import progress_bar
from stella_assets.core.step import Artefact, BuildContext, CheckSpec, Presentation, Result, Step, from_folder
from stella_assets.corpus.clean import repair
from stella_assets.corpus.dropped import read_dropped
from stella_assets.corpus.duplicates import Duplicates
from stella_assets.corpus.errors import EmptyCorpusError
from stella_assets.corpus.judge_pairs import judge_pairs, pair_funnel
from stella_assets.corpus.read import CorpusTexts
from stella_assets.corpus.settings import Clean, CorpusSettings
from stella_assets.corpus.sources import RawText, SourceConfig
from stella_assets.corpus.tables import DROPPED_PAIRS, PAIR_FUNNEL, PAIR_NEGATIVES, PAIRS, SCORED_PAIRS
from stella_assets.corpus.text import text_id
from stella_assets.storage.polars import pl

CODE_VERSION = "1"
CHUNK = 20_000
RAW = pa.schema({
    "source": pa.string(), "query": pa.string(), "document": pa.string(), "negative": pa.bool_(),
    "score": pa.float64(), "origin": pa.string(),
})  # fmt: skip


class PairTables:
    """The pairs of a corpus.

    Args:
        folder: Of the artefact.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def pairs(self) -> pl.DataFrame:
        """`query`, `positive`, `source`, `split` and `origin`, by id."""
        return pl.read_parquet(self.folder / PAIRS.file)

    def negatives(self) -> pl.DataFrame:
        """`query` and `negative`, which the sources state, with `rank` from 1 in the order of the source."""
        return pl.read_parquet(self.folder / PAIR_NEGATIVES.file)

    def scores(self) -> pl.DataFrame:
        """`query`, `document`, `score`, `source`, `split` and `origin`, by id."""
        return pl.read_parquet(self.folder / SCORED_PAIRS.file)


def pairs_step(
    recipe: str,
    *,
    corpus: CorpusSettings,
    texts: Step[CorpusTexts],
    duplicates: Step[Duplicates],
    removals: Sequence[Step[Any]],
) -> Step[PairTables]:
    """The step that makes `pairs`.

    Args:
        recipe: Name of the recipe.
        corpus: Its sources, of which some give pairs.
        texts: The corpus, which has the texts of the pairs that stay.
        duplicates: Which equal text stands for one that was dropped.
        removals: Further steps that removed texts; they say why a text is not there.
    """
    sources = [source for source in corpus.sources if source.gives_pairs]
    before = (texts, duplicates, *removals)

    def build(context: BuildContext) -> Result:
        rows = pl.concat(
            [pl.DataFrame(schema={**pl.Schema(RAW), "query_id": pl.String, "id": pl.String}), *_read(sources, corpus)]
        )
        found = context.read(texts).table(["id", "split"])
        dropped = pl.concat([read_dropped(context.artefact(step).folder) for step in before]).collect()
        judged = judge_pairs(rows, pl.DataFrame(found), dropped)
        _write(judged, context.folder)
        table = pair_funnel(judged)
        PAIR_FUNNEL.write(context.folder, table)
        metrics = _metrics(judged)
        context.log.info(f"pairs: {metrics['pairs']:,} pairs, {metrics['scored']:,} scored, of {len(judged):,} read")
        if not metrics["pairs"] and not metrics["scored"]:
            counts = "; ".join(f"{row['source']}: {row['rule']} {row['pairs']:,}" for row in table)
            raise EmptyCorpusError(
                f"pairs: none are left ({counts or 'the sources hold none'}).",
                "Look at `columns` and `pairs` of the sources, and at corpus.clean.",
            )
        return Result(metrics=metrics, checks=_checks(judged, corpus.splits()))

    return Step(
        recipe=recipe,
        name="pairs",
        code_version=CODE_VERSION,
        settings={
            "sources": [source.reading_settings() for source in sources],
            "clean": corpus.clean.settings("document", "query"),
        },
        dependencies=before,
        external_versions=lambda _workspace: {source.name: source.content_digest() for source in sources},
        build=build,
        read=from_folder(PairTables),
        presentation=Presentation(
            group="corpus",
            kinds=frozenset({"polars", "parquet"}),
            description="Queries with what answers them, negatives and scored pairs, of the texts of the corpus.",
            checks=(
                CheckSpec(
                    "train_and_dev_have_pairs", "There are pairs to train on and to measure with.", blocking=True
                ),
                CheckSpec("no_text_is_in_two_splits", "No text of a pair is in pairs of two splits.", blocking=True),
            ),
            show=_show,
        ),
    )


def _read(sources: Sequence[SourceConfig], corpus: CorpusSettings) -> Iterator[pl.DataFrame]:
    """The pairs of the sources, chunk by chunk, with the ids that their texts have in the corpus."""
    with progress_bar(0, "pairs", "pairs") as bar:
        for source in (each.pinned() for each in sources):
            rows: list[tuple[Any, ...]] = []
            for item in (item for part in source.parts() for item in source.texts(part)):
                if isinstance(item, RawText) and (related := item.related):
                    rows.append((source.name, related.query, item.text, related.negative, related.score, item.origin))
                if len(rows) == CHUNK:
                    yield _with_ids(rows, corpus.clean)
                    bar.update(len(rows))
                    rows = []
            yield _with_ids(rows, corpus.clean)
            bar.update(len(rows))


def _with_ids(rows: list[tuple[Any, ...]], clean: Clean) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=pl.Schema(RAW), orient="row")
    ids = {}
    for name, column in (("query_id", "query"), ("id", "document")):
        # Repaired as the corpus repairs them, or the ids would be others; an empty text has none.
        texts = repair(frame[column], clean)
        ids[name] = pl.Series([text_id(text) if text else None for text in texts], dtype=pl.String)
    return frame.with_columns(**ids)


def _write(judged: pl.DataFrame, folder: Path) -> None:
    kept = judged.filter(pl.col("rule").is_null()).drop("query", "document", "negative").rename({"query_id": "query"})
    kind = pl.col("kind")
    pairs = kept.filter(kind == "pair").rename({"id": "positive"}).sort("query", "positive")
    scores = kept.filter(kind == "scored").rename({"id": "document"}).sort("query", "document")
    negatives = kept.filter(kind == "negative").rename({"id": "negative"})
    # In the order of the sources, which may put the hardest first.
    negatives = negatives.with_columns(rank=pl.int_range(1, pl.len() + 1).over("query")).sort("query", "rank")
    for table, rows in ((PAIRS, pairs), (SCORED_PAIRS, scores), (PAIR_NEGATIVES, negatives)):
        table.write(folder, rows.select(table.schema.names).to_arrow())
    dropped = judged.filter(pl.col("rule").is_not_null())
    dropped = dropped.with_columns(pl.col("query", "document").str.slice(0, 240).str.replace_all(r"\s+", " "))
    DROPPED_PAIRS.write(folder, dropped.select(DROPPED_PAIRS.schema.names).sort(DROPPED_PAIRS.schema.names).to_arrow())


def _metrics(judged: pl.DataFrame) -> dict[str, int]:
    kept = judged.filter(pl.col("rule").is_null())
    pairs = kept.filter(pl.col("kind") == "pair")
    return {
        "pairs": len(pairs),
        **{f"pairs_{split}": int((pairs["split"] == split).sum()) for split in ("train", "dev", "test")},
        "queries": pairs["query_id"].n_unique(),
        "scored": int((kept["kind"] == "scored").sum()),
        "negatives": int((kept["kind"] == "negative").sum()),
        "dropped": len(judged) - len(kept),
    }


def _checks(judged: pl.DataFrame, splits: Mapping[str, float]) -> tuple[Check, ...]:
    kept = judged.filter(pl.col("rule").is_null(), pl.col("kind") != "negative")
    counts = {split: int((kept["split"] == split).sum()) for split in splits}
    sides = pl.concat([kept.select(id=side, split="split") for side in ("query_id", "id")])
    crossing = int((sides.group_by("id").agg(pl.col("split").n_unique())["split"] > 1).sum())
    return (
        Check("train_and_dev_have_pairs", bool(counts["train"] and counts["dev"]), f"pairs by split: {counts}"),
        Check(
            "no_text_is_in_two_splits",
            not crossing,
            f"{crossing:,} texts are in pairs of two splits",
            {"texts": crossing},
        ),
    )


def _show(artefact: Artefact) -> Mapping[str, Shown]:
    funnel = pl.read_parquet(artefact.folder / PAIR_FUNNEL.file)
    examples = pl.read_parquet(artefact.folder / DROPPED_PAIRS.file, n_rows=12)
    return {"funnel": Rows(funnel.to_dicts()), "dropped": Rows(examples.to_dicts())}
