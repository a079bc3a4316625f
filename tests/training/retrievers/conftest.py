"""A corpus of short texts with pairs, negatives and scores, and a small random model: a retriever trains in seconds."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from stella_assets.core.config import ModelSource
from stella_assets.core.devices import Compute
from stella_assets.corpus.read import CorpusTexts
from stella_assets.corpus.tables import TEXTS
from stella_assets.training.retrievers import RETRIEVERS
from stella_assets.training.retrievers.base import RetrieverConfig, Trainee
from stella_assets.training.retrievers.candidates import Candidates, find_candidates
from stella_assets.training.retrievers.lists import CandidateLists
from stella_assets.training.retrievers.loop import RetrieverTraining, TrainedRetriever
from stella_assets.training.retrievers.texts import Texts
from tests.models import TEXTS as SENTENCES

QUERIES, DOCUMENTS, DEV = 60, 120, 12
LOG = logging.getLogger("retrievers")


def text_id(number: int) -> str:
    return f"{number:032x}"


@dataclass(frozen=True)
class Lists:
    """Query n, of the first 60 texts, is answered by text 60 + n; the negatives of ranks 1 to 5 follow that one."""

    folder: Path
    corpus: CorpusTexts
    pairs: pl.DataFrame
    negatives: pl.DataFrame
    scores: pl.DataFrame

    def find(self, split: str, *, scored: bool = True, most: int = 4, least: int = 2) -> Candidates:
        ids = pl.Series(self.corpus.table(["id"])["id"])
        chosen = pl.col("split") == split
        pairs, negatives = self.pairs.filter(chosen), self.negatives.filter(chosen)
        scores = self.scores if scored else None
        return find_candidates(ids, pairs, [negatives], scores, most=most, least=least)

    def data(self, **settings: Any) -> dict[str, CandidateLists]:
        found = {split: self.find(split, **settings) for split in ("train", "dev")}
        wanted = np.unique(np.concatenate([lists.texts for lists in found.values()]))
        texts = Texts(self.corpus, wanted, self.folder / "texts.arrow")
        deviation = found["train"].deviation
        return {split: CandidateLists(lists, texts, deviation) for split, lists in found.items()}


def make_lists(folder: Path) -> Lists:
    random = np.random.default_rng(1)
    texts = [" ".join(random.choice(SENTENCES, random.integers(1, 4))) for _ in range(QUERIES + DOCUMENTS)]
    rows = [
        {"id": text_id(n), "text": f"{text} {n}", "role": "query" if n < QUERIES else "document"}
        for n, text in enumerate(texts)
    ]
    TEXTS.write(folder, [{name: row.get(name) for name in TEXTS.schema.names} for row in rows])
    splits = ["dev" if n < DEV else "train" for n in range(QUERIES)]
    pairs = pl.DataFrame(
        [{"query": text_id(n), "positive": text_id(QUERIES + n), "split": split} for n, split in enumerate(splits)]
    )
    ranked = [(n, rank, QUERIES + (n + 7 * rank) % DOCUMENTS) for n in range(QUERIES) for rank in range(1, 6)]
    negatives = pl.DataFrame(
        [{"query": text_id(n), "negative": text_id(d), "rank": rank, "split": splits[n]} for n, rank, d in ranked]
    )
    scores = pl.concat([pairs.select("query", document="positive"), negatives.select("query", document="negative")])
    scores = scores.unique(maintain_order=True)
    return Lists(folder, CorpusTexts(folder), pairs, negatives, scores.with_columns(score=random.random(len(scores))))


def late(**changes: Any) -> RetrieverConfig:
    settings = {"name": "late", "kind": "multi_vector", "token_dim": 8, "query_length": 24, "document_length": 32}
    learnt = {"scores": "store", "losses": {"kl": 1, "margin_mse": 0.1, "contrastive": 0.2}, "candidates": 4}
    sizes = {"batch_size": 6, "steps": 5, "learning_rate": 1e-3, "checkpoint_every": 2}
    raw = {**settings, **learnt, **sizes, **changes}
    return RETRIEVERS[raw["kind"]].model_validate(raw)


def ranker(**changes: Any) -> RetrieverConfig:
    settings = {"name": "ranker", "kind": "reranker", "max_length": 48, "scores": "store", "candidates": 4}
    learnt = {"losses": {"bce": 1, "mse": 0.5, "listnet": 1}}
    sizes = {"batch_size": 6, "steps": 5, "learning_rate": 1e-3, "checkpoint_every": 2}
    return RETRIEVERS["reranker"].model_validate({**settings, **learnt, **sizes, **changes})


def start(settings: RetrieverConfig, model: Path) -> Trainee:
    retriever: Any = settings.initialise(ModelSource(model=str(model)), None, 3, Compute())
    retriever.dtype = "float32"  # whatever this processor computes in
    return retriever


def train(
    settings: RetrieverConfig, retriever: Trainee, data: dict[str, CandidateLists], scratch: Path
) -> TrainedRetriever:
    scratch.mkdir(exist_ok=True)
    return RetrieverTraining("retriever/late", settings, retriever, data, 5, scratch, LOG).run()


@pytest.fixture
def lists(tmp_path: Path) -> Lists:
    return make_lists(tmp_path)


@pytest.fixture
def model(published: Callable[[str], Path]) -> Path:
    """A random BERT of three small layers."""
    return published("bert")
