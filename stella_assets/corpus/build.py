"""Building the corpus: read, normalise, filter, deduplicate, split, and count what was dropped and why."""

from __future__ import annotations

import heapq
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq

from stella_assets.corpus.sources import read_source, source_digests
from stella_assets.corpus.text import normalise, split_of, text_id, uniform
from stella_assets.manifest import Check
from stella_assets.recipe import Corpus, FileSource, Recipe, Source
from stella_assets.step import Artefact, Result, Step, Workbench
from storage.statistics import FUNNEL, TEXTS, write_table

CODE_VERSION = "1"
CORPUS_FILE = "corpus.parquet"
FUNNEL_FILE = "funnel.parquet"


class EmptyCorpusError(ValueError):
    """Nothing, or nothing to train on, is left of the sources."""


def corpus_step(recipe: Recipe) -> Step:
    """The step that makes `corpus`."""
    settings = recipe.corpus.settings("sources")
    settings["sources"] = [
        source.settings("path") if isinstance(source, FileSource) else source.settings()
        for source in recipe.corpus.sources
    ]
    return Step(
        recipe=recipe.name,
        name="corpus",
        code_version=CODE_VERSION,
        settings=settings,
        sources=lambda: source_digests(recipe.corpus),
        build=lambda bench: build_corpus(recipe.corpus, bench),
    )


def build_corpus(corpus: Corpus, bench: Workbench) -> Result:
    """Write `corpus.parquet`, one row a text, and `funnel.parquet`, the counts by source and rule.

    Raises:
        EmptyCorpusError: No text, or no training text, is left; the message holds the funnel.
    """
    seen: set[str] = set()
    rows: list[dict[str, str]] = []
    funnel: Counter[tuple[str, str]] = Counter()
    for source in corpus.sources:
        kept = _keep(corpus, source, seen, funnel)
        rows.extend(kept)
        bench.log.info(f"corpus: {len(kept):,} texts kept of source {source.name}")
    splits = Counter(row["split"] for row in rows)
    _require_texts(corpus, splits, funnel)
    rows.sort(key=lambda row: row["id"])
    write_table(bench.folder / CORPUS_FILE, TEXTS, rows)
    counts = [{"source": s, "rule": r, "texts": n} for (s, r), n in sorted(funnel.items())]
    write_table(bench.folder / FUNNEL_FILE, FUNNEL, counts)
    return Result(
        facts={
            "texts": len(rows),
            **{f"texts_{split}": splits[split] for split in ("train", "dev", "test")},
            "queries": sum(row["role"] == "query" for row in rows),
            "mean_chars": round(sum(len(row["text"]) for row in rows) / len(rows), 1),
            "licences": sorted({row["licence"] for row in rows}),
        },
        checks=(
            Check("ids_are_unique", len({row["id"] for row in rows}) == len(rows), "every text is there once"),
            Check("every_split_has_texts", all(splits[s] for s in ("train", "dev", "test")), f"splits: {dict(splits)}"),
        ),
    )


def _keep(corpus: Corpus, source: Source, seen: set[str], funnel: Counter[tuple[str, str]]) -> list[dict[str, str]]:
    """The rows of a source that pass every rule, counting what each rule dropped."""
    candidates = []
    fractions = {"test": corpus.test, "dev": corpus.dev}
    for raw in read_source(source):
        funnel[source.name, "read"] += 1
        text = normalise(raw.text)
        key = text_id(text)
        if len(text) < corpus.min_chars:
            funnel[source.name, "too short"] += 1
        elif len(text) > corpus.max_chars:
            funnel[source.name, "too long"] += 1
        elif key in seen:
            funnel[source.name, "duplicate"] += 1
        else:
            seen.add(key)
            group = text_id(normalise(raw.parent)) if raw.parent else key
            candidates.append(
                {
                    "id": key,
                    "text": text,
                    "source": source.name,
                    "section": raw.section,
                    "role": raw.role,
                    "split": split_of(group, fractions),
                    "licence": raw.licence,
                    "origin": raw.origin,
                }
            )
    kept = candidates
    if source.limit is not None and len(candidates) > source.limit:
        kept = heapq.nsmallest(source.limit, candidates, key=lambda row: uniform("limit", row["id"]))
        funnel[source.name, "over the limit"] = len(candidates) - len(kept)
    funnel[source.name, "kept"] = len(kept)
    return kept


def _require_texts(corpus: Corpus, splits: Counter[str], funnel: Counter[tuple[str, str]]) -> None:
    if splits["train"]:
        return
    table = "; ".join(f"{source}: {rule} {count:,}" for (source, rule), count in sorted(funnel.items()))
    raise EmptyCorpusError(
        f"corpus: no training texts are left ({table or 'the sources hold nothing'}). "
        f"Look at corpus.min_chars {corpus.min_chars}, corpus.max_chars {corpus.max_chars}, the limits and the paths."
    )


def read_texts(corpus: Artefact, columns: list[str]) -> pa.Table:
    """Columns of the corpus, in the order of ids."""
    return pq.read_table(corpus.folder / CORPUS_FILE, columns=columns)
