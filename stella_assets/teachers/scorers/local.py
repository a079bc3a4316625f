"""What scorers share whose model runs here: a pair is scored once, whatever recipe asks for it."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stella_assets.core.progress import progress_bar
from stella_assets.storage.codecs import Scalars
from stella_assets.storage.integrity import mend_table
from stella_assets.storage.keyed_table import KeyedTable
from stella_assets.storage.keys import to_ids
from stella_assets.storage.polars import pl
from stella_assets.teachers.kinds.base import fingerprint_of
from stella_assets.teachers.scorers.base import PairModel, PairScorerConfig, Scored, Scores, Scoring
from stella_assets.teachers.scorers.texts import NO_TEXT, PairTexts, pair_keys
from stella_assets.teachers.tables import SCORES
from stella_assets.teachers.vectors import ABOUT, as_json

UNIT_PAIRS = 4096
"""Pairs that are scored between two commits."""


class LocalScorer(PairScorerConfig):
    """A scorer with a model. Scores are kept by the two texts and by what `describe` says."""

    @abstractmethod
    def describe(self, scoring: Scoring) -> dict[str, Any]:
        """Everything that a score depends on in addition to the texts, as plain values; `model` is only told.

        Args:
            scoring: What it works with.
        """

    @abstractmethod
    def open(self, scoring: Scoring) -> PairModel:
        """The model, ready to score.

        Args:
            scoring: What it works with.
        """

    def score(self, pairs: pl.DataFrame, scoring: Scoring) -> Scored:
        """What is stored, and for the rest what the model says, unit by unit.

        Raises:
            VectorError: The model gives a number that is not finite; nothing of its unit is stored.
        """
        about = self.describe(scoring)
        name = SCORES + fingerprint_of(about)
        texts, keys = PairTexts(pairs, scoring.texts), pair_keys(pairs)
        there = np.flatnonzero(texts.there_N)
        if damaged := mend_table(scoring.workspace, name):
            scoring.log.warning(f"{self.owner}: {damaged:,} scores are in damaged files, and are computed again")
        table = KeyedTable(scoring.workspace, name, Scalars(), {ABOUT: as_json(about)}, "score")
        models: list[PairModel] = []
        missing = len(table.missing(keys[there]))
        with progress_bar(len(there), self.name, "pairs", done=len(there) - missing) as bar:

            def compute(read: tuple[Sequence[str], Sequence[str]]) -> np.ndarray:
                if not models:  # it is loaded for missing pairs alone
                    models.append(self.open(scoring))
                found = models[0].score_pairs(*read)
                bar.update(len(found))
                return found

            started = time.monotonic()
            computed = table.fill(
                keys[there],
                lambda at: texts.read(there[at]),
                compute,
                UNIT_PAIRS,
                lambda: scoring.log.info(f"{self.owner}: another run is scoring these pairs; waiting for its unit."),
            )
        scores_N: Scores = np.full(len(pairs), np.nan)
        scores_N[there] = table.fetch(to_ids(keys[there]).to_pylist())
        speed = round(computed / (time.monotonic() - started), 1) if computed else None
        without = len(pairs) - len(there)
        left_out: Mapping[str, int] = {NO_TEXT: without} if without else {}
        return Scored(scores_N, left_out, {"scored_now": computed, "pairs_per_second": speed}, table=name)
