"""The method `contrastive`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from stella_assets.core.manifest import Manifest
from stella_assets.core.step import Estimate, Size
from stella_assets.training.sizes import MAX_BATCH_TEXTS
from stella_assets.training.stages.base import STAGES, Outcome, StageConfig, StageContext, StageError
from stella_assets.training.stages.descent import Descent

if TYPE_CHECKING:
    from stella_assets.training.data import Feed
    from stella_assets.training.pairs import PairRows


@STAGES.register
class Contrastive(Descent):
    """Gradient descent on pairs of texts, with losses on the teachers' vectors of the same texts as an anchor.

    Its keys are those of `descent`, with pairs in place of texts: a batch is of `batch_size` pairs, and `texts` and
    `epochs` count pairs.
    """

    data: ClassVar[Literal["texts", "pairs"]] = "pairs"

    method: Literal["contrastive"] = "contrastive"  # type: ignore[assignment]
    hard_negatives: Annotated[int, Field(ge=0, le=100)] = Field(
        0,
        description="negatives of each query in a batch at most: those of its source, then those mined, by rank",
    )
    # Excluded where there are none: the stage has the identity that it had before.
    anchor_texts: Annotated[int, Field(ge=0, le=16_384)] = Field(
        0,
        description="texts of no pair that each batch has in addition, for the losses on the teachers' vectors",
        exclude_if=lambda texts: texts == 0,
    )

    @model_validator(mode="after")
    def _require_small_batches(self) -> Self:
        texts = (self.batch_size or 0) * (2 + self.hard_negatives) + self.anchor_texts
        if texts > MAX_BATCH_TEXTS:
            raise ValueError(
                f"{self.batch_size:,} pairs with {self.hard_negatives} negatives and {self.anchor_texts:,} other texts "
                f"are {texts:,} texts per batch, and {MAX_BATCH_TEXTS:,} fit in memory; lower one of them"
            )
        return self

    def pair_rows(self, context: StageContext, split: str) -> PairRows:
        """The pairs of a split.

        Args:
            context: The texts, and the folder of the pairs.
            split: `train` or `dev`.
        """
        from stella_assets.corpus.pairs import PairTables
        from stella_assets.teachers.mined_negatives import MinedNegatives
        from stella_assets.training.pairs import PairRows

        assert context.pairs is not None, "the recipe was validated"
        tables = PairTables(context.pairs)
        negatives = [tables.negatives()]
        if context.mined_negatives:
            negatives.append(MinedNegatives(context.mined_negatives).negatives())
        return PairRows(tables, context.data[split], split, self.hard_negatives, negatives)

    def feed(self, context: StageContext, split: str) -> Feed:
        """Pairs; see `Descent.feed`."""
        from stella_assets.training.pairs import PairFeed

        return PairFeed(context.data[split], self.pair_rows(context, split), self.anchor_texts, context.seed)

    def require_data(self, name: str, texts: Mapping[str, int]) -> None:
        """Pairs are counted when the stage begins; see `StageConfig.require_data`."""
        StageConfig.require_data(self, name, texts)

    def shortened(self, steps: int, batch_size: int, train: int) -> Self:
        """With as many further texts for each pair; see `StageConfig.shortened`."""
        short = super().shortened(steps, batch_size, train)
        share = short.batch_size / self.batch_size if short.batch_size and self.batch_size else 1
        return short.model_copy(update={"anchor_texts": math.ceil(self.anchor_texts * share)})

    def describe(self) -> str:
        """See `StageConfig.describe`."""
        size = f"{self.batch_tokens:,} tokens" if self.batch_tokens else f"{self.batch_size} pairs"
        others = f" and {self.anchor_texts} other texts" if self.anchor_texts else ""
        return f"Trains on pairs of texts, with the teachers' vectors as an anchor, in batches of {size}{others}."

    def estimate(self, last: Manifest | None, size: Size | None) -> Estimate:
        """Steps and pairs, and the time by the last run's speed; see `StageConfig.estimate`."""
        metrics = last.metrics if last else {}
        pairs = (size.pairs if size else None) or metrics.get("pairs_train", 0) + metrics.get("scored_train", 0)
        batch = self.texts_per_batch(pairs)
        if batch is None or not (pairs or self.steps):
            return super().estimate(last, size if self.epochs is None else None)
        steps = self.steps or max(1, round((self.texts_to_see(pairs) or 0) / batch))
        work = f"{steps:,} steps of {batch} pairs"
        # A pair has two texts or more, as many as in the last run, whose batches may have been smaller.
        per_pair = metrics["texts_seen"] / metrics["steps"] / (metrics.get("batch_size") or batch) if last else None
        texts = round(steps * batch * per_pair) if per_pair else None
        return self._by_last_run(work, last, texts, steps, size)

    def run(self, context: StageContext) -> Outcome:
        """Train in place; see `Descent.run`.

        Raises:
            StageError: There are no pairs to train on or to measure on, or fewer than a batch takes.
        """
        found = {split: self.pair_rows(context, split) for split in ("train", "dev")}
        batch = self.texts_per_batch(len(found["train"])) or 1
        for split, least in (("train", batch), ("dev", 1)):
            rows = found[split]
            context.log.info(
                f"{context.name}: {rows.pairs:,} pairs and {rows.scored:,} scored pairs of {split} texts, "
                f"{rows.negatives:,} negatives; "
                f"{rows.left_out:,} left out, whose texts are not trained on"
            )
            if len(rows) < least:
                raise StageError(
                    f"{context.name}: there are {len(rows)} pairs of {split} texts, and a batch takes {least}.",
                    "Lower `batch_size`, or add pairs.",
                )
        if self.anchor_texts and not len(found["train"].others()):
            raise StageError(
                f"{context.name}: anchor_texts is {self.anchor_texts}, and every train text is in a pair.",
                "Remove `anchor_texts`, or add a source of texts without pairs.",
            )
        outcome = super().run(context)
        rows = found["train"]
        seen = {"pairs_train": rows.pairs, "scored_train": rows.scored, "pairs_left_out": rows.left_out}
        if batch > 1:
            seen["epochs"] = round(outcome.metrics["steps"] * batch / len(rows), 2)
        return replace(outcome, metrics={**outcome.metrics, **seen})
