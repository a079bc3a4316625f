"""Step `corpus`: what is left, mixed, split and written in the order of ids, with the account of everything dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stella_assets.core.manifest import Check
from stella_assets.core.progress import progress_bar
from stella_assets.core.step import Artefact, BuildContext, Result, Step
from stella_assets.corpus.cleaned import DROPPED_FILE, as_dropped, cleaned_step, read_shards
from stella_assets.corpus.contamination import contamination_step
from stella_assets.corpus.duplicates import duplicates_step
from stella_assets.corpus.evaluation_sets import evaluation_step
from stella_assets.corpus.mix import Mix
from stella_assets.corpus.words import match_form, match_keys, sorted_distinct
from stella_assets.recipe import Corpus, Recipe
from storage.sorted_rows import SortedRows, write_in_groups
from storage.statistics import DROPPED, FUNNEL, TEXTS, write_table

CODE_VERSION = "3"
CORPUS_FILE = "corpus.parquet"
FUNNEL_FILE = "funnel.parquet"
LICENCES_FILE = "licences.parquet"


class EmptyCorpusError(ValueError):
    """Nothing, or nothing to train on, is left of the sources."""


def corpus_step(recipe: Recipe) -> Step:
    """The step that makes `corpus`."""
    corpus = recipe.corpus
    needs = [cleaned_step(recipe), duplicates_step(recipe)]
    if corpus.decontaminate:
        needs += [evaluation_step(recipe), contamination_step(recipe)]
    return Step(
        recipe=recipe.name,
        name="corpus",
        code_version=CODE_VERSION,
        settings={
            "mix": {source.name: {"weight": source.weight, "limit": source.limit} for source in corpus.sources},
            "augment": corpus.augment.settings(),
            "dev": corpus.dev,
            "test": corpus.test,
            "min_chars": {role: getattr(corpus.clean, role).min_chars for role in ("document", "query")},
        },
        needs=tuple(needs),
        build=lambda context: build_corpus(corpus, context),
    )


def build_corpus(corpus: Corpus, context: BuildContext) -> Result:
    """Write `corpus.parquet`, one row a text in the order of ids, and what happened to all others.

    Raises:
        EmptyCorpusError: No text, or no training text, is left; the message holds the funnel.
    """
    mix = Mix(corpus, context.inputs, context.workspace)
    texts, dropped = SortedRows(context.scratch / "texts"), SortedRows(context.scratch / "dropped")
    with progress_bar(mix.texts, "corpus", "texts") as bar:
        for count, taken, left_out in mix.shards():
            texts.add(taken.select(*TEXTS.names, "key"))
            dropped.add(as_dropped(left_out.with_columns(detail=None)))
            bar.update(count)
    tally = Tally(mix.forbidden)
    write_in_groups(context.folder / CORPUS_FILE, TEXTS, _each_once(texts, tally, dropped))
    write_in_groups(context.folder / DROPPED_FILE, DROPPED, dropped.parts(DROPPED.names))
    funnel = _funnel(context, tally)
    write_table(context.folder / FUNNEL_FILE, FUNNEL, funnel)
    _require_texts(corpus, tally, funnel)
    pl.DataFrame(
        sorted((*key, n) for key, n in tally.licences.items()), ["licence", "source", "texts"], orient="row"
    ).write_parquet(context.folder / LICENCES_FILE)
    return Result(
        metrics={
            "texts": tally.texts,
            **{f"texts_{split}": tally.splits[split] for split in ("train", "dev", "test")},
            "queries": tally.queries,
            "augmented": tally.augmented,
            "mean_chars": round(tally.chars / tally.texts, 1),
            "licences": sorted({licence for licence, _ in tally.licences}),
        },
        checks=(
            Check("ids_are_unique", tally.ids_ascend, "every text is there once"),
            Check(
                "every_split_has_texts",
                all(tally.splits[s] for s in ("train", "dev", "test")),
                f"splits: {dict(tally.splits)}",
            ),
            Check(
                "no_evaluation_text_is_there",
                not tally.forbidden,
                f"{tally.forbidden:,} of {tally.texts:,} texts equal one of {len(mix.forbidden):,} evaluation texts"
                if len(mix.forbidden)
                else "the recipe names no evaluation set whose texts are dropped",
                {"equal": tally.forbidden},
            ),
        ),
    )


class Tally:
    """What was written.

    Attributes:
        texts: Texts; `queries` and `augmented` of them.
        chars: Characters.
        splits: Texts by split.
        sources: Texts by source.
        licences: Texts by licence and source.
        ids_ascend: Whether each id is above the one before.
        forbidden: Texts that equal an evaluation text but for case, punctuation and spacing.
    """

    def __init__(self, forbidden: pl.Series) -> None:
        """Hold texts against these evaluation texts."""
        self.texts = self.chars = self.queries = self.augmented = self.forbidden = 0
        self.splits: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.licences: Counter[tuple[str, str]] = Counter()
        self.ids_ascend = True
        self._last = ""
        self._forbidden = sorted_distinct(match_keys(match_form(forbidden)))

    def add(self, texts: pl.DataFrame) -> None:
        """Count a part; parts come in the order of ids."""
        if texts.is_empty():
            return
        ids = texts["id"]
        self.ids_ascend &= bool(self._last < ids[0] and (ids.slice(1) > ids.head(-1)).all())
        self._last = ids[-1]
        self.texts += len(texts)
        self.chars += int(texts["text"].str.len_chars().sum())
        self.queries += int((texts["role"] == "query").sum())
        self.augmented += int((texts["augmentation"] != "").sum())
        self.splits.update(dict(texts["split"].value_counts().iter_rows()))
        self.sources.update(dict(texts["source"].value_counts().iter_rows()))
        counts = texts.group_by("licence", "source").len()
        self.licences.update({(licence, source): n for licence, source, n in counts.iter_rows()})
        if len(self._forbidden):
            keys = texts["key"].to_numpy()
            at = np.minimum(np.searchsorted(self._forbidden, keys), len(self._forbidden) - 1)
            self.forbidden += int((self._forbidden[at] == keys).sum())


def _each_once(texts: SortedRows, tally: Tally, dropped: SortedRows) -> Iterator[pl.DataFrame]:
    """Texts by id, each id once; a piece that equals another text is dropped."""
    for rows in texts.parts(["id", "augmentation", "source", "parent", "origin"]):
        first = rows["id"].is_first_distinct()
        twice = rows.filter(~first).with_columns(rule=pl.lit("duplicate"), value=pl.lit(1.0), detail=None)
        dropped.add(as_dropped(twice))
        once = rows.filter(first)
        tally.add(once)
        yield once


def _funnel(context: BuildContext, tally: Tally) -> list[dict[str, Any]]:
    """Counts by source and rule: `read`, what each rule dropped, and `kept`."""
    counts: Counter[tuple[str, str]] = Counter()
    for shard in read_shards(context.inputs["cleaned_texts"].folder):
        counts[shard.source, "read"] += shard.read
    folders = [context.folder, *(artefact.folder for artefact in context.inputs.values())]
    for folder in folders:
        if (folder / DROPPED_FILE).is_file():
            dropped = pl.scan_parquet(folder / DROPPED_FILE).group_by("source", "rule").len().collect()
            counts.update({(source, rule): count for source, rule, count in dropped.iter_rows()})
    counts.update({(source, "kept"): count for source, count in tally.sources.items()})
    return [{"source": s, "rule": r, "texts": n} for (s, r), n in sorted(counts.items())]


def _require_texts(corpus: Corpus, tally: Tally, funnel: list[dict[str, Any]]) -> None:
    if tally.splits["train"]:
        return
    table = "; ".join(f"{row['source']}: {row['rule']} {row['texts']:,}" for row in funnel)
    raise EmptyCorpusError(
        f"corpus: no training texts are left ({table or 'the sources hold nothing'}). "
        f"Look at corpus.clean, limits, weights and paths, and at dev {corpus.dev} and test {corpus.test}."
    )


def read_texts(corpus: Artefact, columns: list[str]) -> pa.Table:
    """Columns of the corpus, in the order of ids."""
    return pq.read_table(corpus.folder / CORPUS_FILE, columns=columns)


def licence_counts(corpus: Artefact) -> list[list[Any]]:
    """Licences of the texts as their sources state them, and how many texts have each, the most frequent first."""
    counts = pl.read_parquet(corpus.folder / LICENCES_FILE).group_by("licence").agg(pl.sum("texts"))
    return [list(row) for row in counts.sort(["texts", "licence"], descending=[True, False]).iter_rows()]
