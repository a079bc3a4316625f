"""Which of the texts that are left the corpus takes, what they are turned into, and their split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import polars as pl
from storage.workspace import Workspace

from stella_assets.core.manifest import digest
from stella_assets.core.step import Artefact
from stella_assets.corpus.augment import augmented
from stella_assets.corpus.cleaned import KIND, Shard, read_shards
from stella_assets.corpus.contamination import open_index, read_evaluation
from stella_assets.corpus.duplicates import LEFT_FILE
from stella_assets.corpus.evaluation_index import EvaluationIndex
from stella_assets.corpus.text import splits_of, text_id, uniforms
from stella_assets.corpus.words import match_form, match_keys
from stella_assets.recipe import Corpus, Source
from storage.shards import ShardStore

CODE_VERSION = "1"
AUGMENTED_KIND = "augmented"
COLUMNS = ["id", "key", "text", "section", "role", "licence", "origin"]
MADE = {
    "row": pl.UInt32, "id": pl.String, "key": pl.UInt64, "text": pl.String, "augmentation": pl.String,
    "rule": pl.String, "value": pl.Float64,
}  # fmt: skip


class Mixed(NamedTuple):
    """What became of the texts of a shard.

    Attributes:
        texts: How many were left.
        taken: What goes into the corpus.
        dropped: What does not, with `rule` and `value`.
    """

    texts: int
    taken: pl.DataFrame
    dropped: pl.DataFrame


class Mix:
    """The texts of a corpus, shard by shard.

    Attributes:
        texts: Texts to choose from.
        forbidden: Evaluation texts that must not be there; what augmentation makes is held against them.
    """

    def __init__(self, corpus: Corpus, inputs: Mapping[str, Artefact], workspace: Workspace) -> None:
        """Take what the steps before have left."""
        self._corpus, self._cleaned = corpus, ShardStore(workspace, KIND)
        self._shards = read_shards(inputs["cleaned_texts"].folder)
        left = pl.read_parquet(inputs["duplicates"].folder / LEFT_FILE)
        self.texts = len(left)
        self._left = {number: rows.drop("shard") for (number,), rows in left.group_by("shard", maintain_order=True)}
        self._none = left.clear().drop("shard")
        self._inputs, self._workspace = inputs, workspace
        self._drops = pl.Series([], dtype=pl.Boolean)
        self.forbidden = pl.Series([], dtype=pl.String)
        if corpus.decontaminate:
            evaluation = read_evaluation(inputs["evaluation_texts"], corpus.decontaminate)
            self._drops = evaluation["drops"]
            self.forbidden = evaluation.filter("drops")["text"].unique()
        self._augmented = ShardStore(workspace, AUGMENTED_KIND)
        self._settings = digest(
            [
                CODE_VERSION,
                corpus.augment.settings(),
                corpus.decontaminate.settings() if corpus.decontaminate else None,
                {role: getattr(corpus.clean, role).min_chars for role in ("document", "query")},
                inputs["evaluation_texts"].digest if corpus.decontaminate else None,
            ]
        )

    @cached_property
    def _index(self) -> EvaluationIndex:
        assert self._corpus.decontaminate is not None
        return open_index(self._inputs["evaluation_texts"], self._corpus.decontaminate, self._workspace)

    def shards(self) -> Iterator[Mixed]:
        """The texts of each shard that are left; a text made of another has its id as `parent`."""
        for source in self._corpus.sources:
            mine = [number for number, shard in enumerate(self._shards) if shard.source == source.name]
            highest = self._highest_draw(source, mine)
            for number in mine:
                yield self._of_shard(source, number, highest)

    def _rows(self, number: int, columns: list[str]) -> pl.DataFrame:
        """Columns of the texts of a shard that are left, with their `row` and `group`."""
        left = self._left.get(number, self._none)
        return self._cleaned.read(self._shards[number].key, columns)[left["row"].to_numpy()].hstack(left)

    def _highest_draw(self, source: Source, numbers: list[int]) -> float:
        """The draw of the last text within the source's limit."""
        if source.limit is None:
            return 1.0
        draws = [np.empty(0)]
        for number in numbers:
            ids = self._rows(number, ["id"])["id"]
            draws.append(uniforms("limit", ids)[uniforms("mix", ids) < source.weight])
        drawn = np.concatenate(draws)
        return float(np.partition(drawn, source.limit - 1)[source.limit - 1]) if len(drawn) > source.limit else 1.0

    def _of_shard(self, source: Source, number: int, highest: float) -> Mixed:
        rows = self._rows(number, COLUMNS).with_columns(
            source=pl.lit(source.name), augmentation=pl.lit(""), parent=pl.lit(None, pl.String)
        )
        judged = rows.hstack(_judge_draws(rows["id"], source.weight, highest))
        chosen = judged.filter(pl.col("rule").is_null())
        made = self._made(self._shards[number])
        about = chosen.drop("key", "text", "augmentation", "rule", "value").with_columns(parent=pl.col("id")).drop("id")
        pieces = made.join(about, on="row", maintain_order="left").select(judged.columns)
        mixed = pl.concat([chosen.join(made, on="row", how="anti", maintain_order="left"), pieces])
        splits = {"test": self._corpus.test, "dev": self._corpus.dev}
        split = splits_of(pl.Series(f"{group:016x}" for group in mixed["group"]), splits)
        taken = pl.col("rule").is_null()
        dropped = pl.concat([judged.filter(~taken), mixed.filter(~taken)])
        return Mixed(len(rows), mixed.with_columns(split).filter(taken), dropped)

    def _made(self, shard: Shard) -> pl.DataFrame:
        """What augmentation makes of the texts of a shard, whether they are chosen or not."""
        settings = self._corpus.augment
        if not settings.cut and not settings.shuffle:
            return pl.DataFrame(schema=MADE)
        return self._augmented.get(f"{shard.key}-{self._settings}", partial(self._augment, shard))

    def _augment(self, shard: Shard) -> pl.DataFrame:
        """Texts made of other texts, and what of them is too short or holds an evaluation text."""
        rows = self._cleaned.read(shard.key, ["id", "text", "role"]).head(shard.kept).with_row_index("row")
        texts = rows.select("text", "id", "role").iter_rows()
        changes = [augmented(text, key, role, self._corpus.augment) for text, key, role in texts]
        made = (
            rows.with_columns(
                augmentation=pl.Series([how for how, _ in changes], dtype=pl.String),
                text=pl.Series([parts for _, parts in changes], dtype=pl.List(pl.String)),
            )
            .filter(pl.col("augmentation") != "")
            .explode("text")
        )
        forms = match_form(made["text"])
        return made.with_columns(
            id=pl.Series(map(text_id, made["text"]), dtype=pl.String),
            key=pl.Series(match_keys(forms), dtype=pl.UInt64),
            **self._judge_made(made, forms),
        ).select(list(MADE))

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


def _judge_draws(ids: pl.Series, weight: float, highest: float) -> pl.DataFrame:
    """`rule` and `value` of texts that a source's weight or limit leaves out; null for the others."""

    def drawn(name: str, needed: bool) -> pl.Series:
        return pl.Series(name, uniforms(name, ids) if needed else np.zeros(len(ids)))

    draws = pl.DataFrame([drawn("mix", weight < 1), drawn("limit", highest < 1)])
    verdict = (
        pl.when(pl.col("mix") >= weight)
        .then(pl.struct(rule=pl.lit("not drawn"), value="mix"))
        .when(pl.col("limit") > highest)
        .then(pl.struct(rule=pl.lit("over the limit"), value="limit"))
        .otherwise(pl.struct(rule=pl.lit(None, pl.String), value=pl.lit(None, pl.Float64)))
    )
    return draws.select(verdict.alias("verdict")).unnest("verdict")
