"""Which of the texts that are left the corpus takes, what they are replaced by, and their split."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from stella_assets.corpus.augment import augmented
from stella_assets.corpus.evaluation_index import EvaluationIndex
from stella_assets.corpus.evaluation_texts import EvaluationTexts
from stella_assets.corpus.settings import CorpusSettings
from stella_assets.corpus.shards import CleanedTexts, Shard
from stella_assets.corpus.sources import SourceConfig
from stella_assets.corpus.text import splits_of, text_id, uniforms
from stella_assets.corpus.words import match_form, match_keys
from stella_assets.storage.canonical import digest
from stella_assets.storage.polars import pl
from stella_assets.storage.shards import ShardStore

CODE_VERSION = "1"
"""Of the stored results of augmentation."""
AUGMENTED_KIND = "augmented"
COLUMNS = ["id", "key", "text", "section", "role", "licence", "origin"]
MADE = pa.schema({
    "row": pa.uint32(), "id": pa.string(), "key": pa.uint64(), "text": pa.string(), "augmentation": pa.string(),
    "rule": pa.string(), "value": pa.float64(),
})  # fmt: skip


class Mixed(NamedTuple):
    """What became of the texts of a shard.

    Attributes:
        texts: How many were left.
        taken: What the corpus takes.
        dropped: What it does not take, with `rule` and `value`.
    """

    texts: int
    taken: pl.DataFrame
    dropped: pl.DataFrame


class Mix:
    """The texts of a corpus, shard by shard.

    Args:
        corpus: Sources with weights and limits, augmentation, and fractions of splits.
        cleaned: The texts.
        left: `shard`, `row` and `group` of the texts to choose from.
        evaluation: Evaluation texts that must not be in the corpus; None where the recipe names none.

    Attributes:
        texts: How many texts there are to choose from.
        forbidden: Evaluation texts that must not be there. What augmentation makes is compared with them.
    """

    def __init__(
        self, corpus: CorpusSettings, cleaned: CleanedTexts, left: pl.DataFrame, evaluation: EvaluationTexts | None
    ) -> None:
        self._corpus, self._cleaned, self._evaluation = corpus, cleaned, evaluation
        self.texts = len(left)
        self._left = {number: rows.drop("shard") for (number,), rows in left.group_by("shard", maintain_order=True)}
        self._none = left.clear().drop("shard")
        self._drops = pl.Series([], dtype=pl.Boolean)
        self.forbidden = pl.Series([], dtype=pl.String)
        if corpus.decontaminate and evaluation:
            policies = evaluation.with_policies(corpus.decontaminate.sets)
            self._drops = policies["drops"]
            self.forbidden = policies.filter("drops")["text"].unique()
        self._augmented = ShardStore(cleaned.store.workspace, AUGMENTED_KIND)
        # Everything that decides what augmentation makes and how it is judged: part of the key of stored results.
        self._settings = digest(
            [
                CODE_VERSION,
                corpus.augment.settings(),
                corpus.decontaminate.settings() if corpus.decontaminate else None,
                corpus.clean.min_chars(),
                evaluation.digest if evaluation else None,
            ]
        )

    @cached_property
    def _index(self) -> EvaluationIndex:
        assert self._corpus.decontaminate is not None
        assert self._evaluation is not None
        return self._evaluation.index(self._corpus.decontaminate)

    def shards(self) -> Iterator[Mixed]:
        """What became of the texts of each shard. A text that was made of another has the other's id as `parent`."""
        for source in self._corpus.sources:
            own = [number for number, shard in enumerate(self._cleaned.shards) if shard.source == source.name]
            highest = self._highest_draw(source, own)
            for number in own:
                yield self._of_shard(source, number, highest)

    def _rows(self, number: int, columns: list[str]) -> pl.DataFrame:
        """Columns of the texts of a shard that are left, with their `row` and `group`."""
        left = self._left.get(number, self._none)
        return self._cleaned.rows(self._cleaned.shards[number], columns)[left["row"].to_numpy()].hstack(left)

    def _highest_draw(self, source: SourceConfig, numbers: list[int]) -> float:
        """The draw of the last text within the source's limit."""
        if source.limit is None:
            return 1.0
        # Draws for the limit are independent of those for the weight, so a changed weight does not bias the limit.
        draws = [np.empty(0)]
        for number in numbers:
            keys = _draw_keys(source, self._rows(number, ["id"]))
            draws.append(uniforms("limit", keys)[uniforms("mix", keys) < source.weight])
        # `partition` finds the limit-th smallest draw without sorting all of them.
        drawn = np.concatenate(draws)
        return float(np.partition(drawn, source.limit - 1)[source.limit - 1]) if len(drawn) > source.limit else 1.0

    def _of_shard(self, source: SourceConfig, number: int, highest: float) -> Mixed:
        rows = self._rows(number, COLUMNS).with_columns(
            source=pl.lit(source.name), augmentation=pl.lit(""), parent=pl.lit(None, pl.String)
        )
        judged = rows.hstack(_judge_draws(_draw_keys(source, rows), source.weight, highest))
        chosen = judged.filter(pl.col("rule").is_null())
        made = self._made(self._cleaned.shards[number])
        # What was made of a text inherits the rest of its row, `group` too, so that it is in the same split.
        about = chosen.drop("key", "text", "augmentation", "rule", "value").with_columns(parent=pl.col("id")).drop("id")
        pieces = made.join(about, on="row", maintain_order="left").select(judged.columns)
        # A text that was cut or shuffled is replaced: only what was made of it stays.
        mixed = pl.concat([chosen.join(made, on="row", how="anti", maintain_order="left"), pieces])
        splits = {"test": self._corpus.test, "dev": self._corpus.dev}
        # Drawn from the group and not from the text: near copies must not be on both sides of a split.
        split = splits_of(pl.Series(f"{group:016x}" for group in mixed["group"]), splits)
        taken = pl.col("rule").is_null()
        dropped = pl.concat([judged.filter(~taken), mixed.filter(~taken)])
        return Mixed(len(rows), mixed.with_columns(split).filter(taken), dropped)

    def _made(self, shard: Shard) -> pl.DataFrame:
        """What augmentation makes of the texts of a shard, whether they are chosen or not, so that it is stored."""
        settings = self._corpus.augment
        if not settings.cut and not settings.shuffle:
            return pl.DataFrame(schema=pl.Schema(MADE))
        return self._augmented.get(f"{shard.key}-{self._settings}", partial(self._augment, shard))

    def _augment(self, shard: Shard) -> pl.DataFrame:
        """Texts made of other texts; `rule` says which of them are too short or hold an evaluation text."""
        rows = self._cleaned.rows(shard, ["id", "text", "role"]).with_row_index("row")
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
        ).select(MADE.names)

    def _judge_made(self, made: pl.DataFrame, forms: pl.Series) -> dict[str, pl.Series]:
        """`rule` and `value` of what augmentation made."""
        rules: list[str | None] = [None] * len(made)
        values: list[float | None] = [None] * len(made)
        for row, (text, role) in enumerate(made.select("text", "role").iter_rows()):
            if len(text) < self._corpus.clean.rules(role).min_chars:
                rules[row], values[row] = "too short", len(text)
        # A cut can isolate an evaluation text that was too small a share of the document to count.
        if len(self.forbidden) and len(made):
            for row, evaluation, rule, value in self._index.find(forms).iter_rows():
                # A shorter evaluation text may be a common phrase; it counts only where it is the whole text.
                long = self._index.lengths[evaluation] >= self._index.words
                if self._drops[evaluation] and (rule == "equal" or long):
                    rules[row], values[row] = f"evaluation text, {rule}", value
        return {"rule": pl.Series(rules, dtype=pl.String), "value": pl.Series(values, dtype=pl.Float64)}


def _draw_keys(source: SourceConfig, rows: pl.DataFrame) -> pl.Series:
    """What texts are drawn by: their ids, or of a source of pairs their groups, so that pairs stay whole."""
    return pl.Series(f"{group:016x}" for group in rows["group"]) if source.gives_pairs else rows["id"]


def _judge_draws(ids: pl.Series, weight: float, highest: float) -> pl.DataFrame:
    """`rule` and `value` of texts that a source's weight or limit leaves out; null for the others."""

    def drawn(name: str, needed: bool) -> pl.Series:
        # Hashing every id takes time; a draw of 0 passes both comparisons, since weights are above 0.
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
