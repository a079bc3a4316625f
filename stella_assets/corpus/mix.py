"""Which of the texts that are left the corpus takes, what they are turned into, and their split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import polars as pl

from stella_assets.corpus.augment import augmented
from stella_assets.corpus.cleaned import KIND, read_shards
from stella_assets.corpus.contamination import open_index, read_evaluation
from stella_assets.corpus.duplicates import LEFT_FILE
from stella_assets.corpus.evaluation_index import EvaluationIndex
from stella_assets.corpus.text import split_of, text_id, uniform
from stella_assets.corpus.words import match_form, match_keys
from stella_assets.manifest import digest
from stella_assets.recipe import Corpus, Source
from stella_assets.step import Artefact
from storage.home import Home
from storage.shards import ShardStore

CODE_VERSION = "1"
MIXED_KIND = "mixed"
COLUMNS = ["id", "key", "text", "section", "role", "licence", "origin"]


_NONE_LEFT = pl.DataFrame(schema={"shard": pl.UInt32, "row": pl.UInt32, "group": pl.UInt64})


class Mix:
    """The texts of a corpus, shard by shard.

    Attributes:
        texts: Texts to choose from.
        forbidden: Evaluation texts that must not be there; what augmentation makes is held against them.
    """

    def __init__(self, corpus: Corpus, inputs: Mapping[str, Artefact], home: Home) -> None:
        """Take what the steps before have left."""
        self._corpus, self._cleaned = corpus, ShardStore(home, KIND)
        self._shards = read_shards(inputs["cleaned_texts"].folder)
        left = pl.read_parquet(inputs["duplicates"].folder / LEFT_FILE)
        self.texts = len(left)
        self._left = {number: rows for (number,), rows in left.group_by("shard", maintain_order=True)}
        self._inputs, self._home = inputs, home
        self._drops = pl.Series([], dtype=pl.Boolean)
        self.forbidden = pl.Series([], dtype=pl.String)
        if corpus.decontaminate:
            evaluation = read_evaluation(inputs["evaluation_texts"], corpus.decontaminate)
            self._drops = evaluation["drops"]
            self.forbidden = evaluation.filter("drops")["text"].unique()
        self._mixed = ShardStore(home, MIXED_KIND)
        self._settings = [
            CODE_VERSION,
            corpus.settings("sources", "clean", "deduplicate"),
            {role: getattr(corpus.clean, role).min_chars for role in ("document", "query")},
            inputs["evaluation_texts"].digest if corpus.decontaminate else None,
        ]

    @cached_property
    def _index(self) -> EvaluationIndex:
        assert self._corpus.decontaminate is not None
        return open_index(self._inputs["evaluation_texts"], self._corpus.decontaminate, self._home)

    def shards(self) -> Iterator[Path]:
        """A file for each shard; a row that does not go into the corpus has `rule` and `value`, the others null."""
        for source in self._corpus.sources:
            mine = [number for number, shard in enumerate(self._shards) if shard.source == source.name]
            highest = self._highest_draw(source, mine)
            for number in mine:
                left = self._left.get(number, _NONE_LEFT)
                about = digest([self._settings, source.name, source.weight, highest, _content(left)])
                key = f"{self._shards[number].key}-{about}"
                self._mixed.get(key, partial(self._of_shard, source, number, highest))
                yield self._mixed.path(key)

    def _rows(self, number: int, columns: list[str]) -> pl.DataFrame:
        """Columns of the texts of a shard that are left, with their groups."""
        left = self._left.get(number, _NONE_LEFT)
        return self._cleaned.read(self._shards[number].key, columns)[left["row"].to_numpy()].with_columns(left["group"])

    def _highest_draw(self, source: Source, numbers: list[int]) -> float:
        """The draw of the last text within the source's limit."""
        if source.limit is None:
            return 1.0
        draws = [np.empty(0)]
        for number in numbers:
            ids = self._rows(number, ["id"])["id"]
            draws.append(np.array([uniform("limit", key) for key in ids if uniform("mix", key) < source.weight]))
        drawn = np.concatenate(draws)
        return float(np.partition(drawn, source.limit - 1)[source.limit - 1]) if len(drawn) > source.limit else 1.0

    def _of_shard(self, source: Source, number: int, highest: float) -> pl.DataFrame:
        rows = self._rows(number, COLUMNS).with_columns(
            source=pl.lit(source.name), augmentation=pl.lit(""), parent=pl.lit(None, pl.String)
        )
        weights = pl.Series("weight", [uniform("mix", key) for key in rows["id"]], dtype=pl.Float64)
        limits = pl.Series("limit", [uniform("limit", key) for key in rows["id"]], dtype=pl.Float64)
        judged = (
            rows.with_columns(weights, limits)
            .with_columns(
                verdict=pl.when(pl.col("weight") >= source.weight)
                .then(pl.struct(rule=pl.lit("not drawn"), value=pl.col("weight")))
                .when(pl.col("limit") > highest)
                .then(pl.struct(rule=pl.lit("over the limit"), value=pl.col("limit")))
            )
            .unnest("verdict")
            .drop("weight", "limit")
        )
        chosen = judged["rule"].is_null()
        mixed = pl.concat([self._augment(judged.filter(chosen)), judged.filter(~chosen)])
        splits = {"test": self._corpus.test, "dev": self._corpus.dev}
        split = pl.Series("split", [split_of(f"{group:016x}", splits) for group in mixed["group"]], dtype=pl.String)
        return mixed.with_columns(split, detail=pl.lit(None, pl.String)).drop("group").sort("id")

    def _augment(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Texts as they go into the corpus, and what of that is too short or holds an evaluation text."""
        settings = self._corpus.augment
        if not settings.cut and not settings.shuffle:
            return rows
        texts = rows.select("text", "id", "role").iter_rows()
        changes = [augmented(text, key, role, settings) for text, key, role in texts]
        replaced = pl.Series([how != "" for how, _ in changes], dtype=pl.Boolean)
        made = (
            rows.with_columns(
                parent=pl.col("id"),
                augmentation=pl.Series([how for how, _ in changes], dtype=pl.String),
                text=pl.Series([parts for _, parts in changes], dtype=pl.List(pl.String)),
            )
            .filter(replaced)
            .explode("text")
        )
        forms = match_form(made["text"])
        made = made.with_columns(
            id=pl.Series(map(text_id, made["text"]), dtype=pl.String),
            key=pl.Series(match_keys(forms), dtype=pl.UInt64),
            **self._judge_made(made, forms),
        )
        return pl.concat([rows.filter(~replaced), made])

    def _judge_made(self, made: pl.DataFrame, forms: pl.Series) -> dict[str, pl.Series]:
        """`rule` and `value` of what augmentation made."""
        rules: list[str | None] = [None] * len(made)
        values: list[float | None] = [None] * len(made)
        for row, (text, role) in enumerate(made.select("text", "role").iter_rows()):
            if len(text) < getattr(self._corpus.clean, role).min_chars:
                rules[row], values[row] = "too short", len(text)
        if len(self.forbidden) and len(made):
            for row, evaluation, rule, value in self._index.find(forms).iter_rows():
                long = self._index.lengths[evaluation] >= self._index.words  # a shorter one may be a phrase
                if self._drops[evaluation] and (rule == "equal" or long):
                    rules[row], values[row] = f"evaluation text, {rule}", value
        return {"rule": pl.Series(rules, dtype=pl.String), "value": pl.Series(values, dtype=pl.Float64)}


def _content(left: pl.DataFrame) -> str:
    """What identifies the rows that are left of a shard, and their groups."""
    return hashlib.sha256(left["row"].to_numpy().tobytes() + left["group"].to_numpy().tobytes()).hexdigest()
