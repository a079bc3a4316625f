"""Corpora made of small files."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from storage.workspace import Workspace

from stella_assets.core.step import Artefact, Runner, all_steps
from stella_assets.corpus.build import CORPUS_FILE, FUNNEL_FILE, corpus_step
from stella_assets.recipe import Recipe, read_recipe
from tests.conftest import write_recipe

LONG = (
    "This is sentence number {} of the text, and it is long enough to be kept by every rule. It has a second part {}."
)
DIFFERENT = [
    "The harbour of {} was full of {} boats when the storm came in from the {} sea",
    "Nobody in {} had ever painted a {} horse on the {} wall of the town hall before",
    "She carried {} letters and a {} lamp through the {} forest until the morning",
    "A train from {} takes {} hours and stops at every {} station on its way",
    "Our teacher of {} translate_lance_errors why {} stars are never {} in the summer sky",
]


def different(number: int) -> str:
    """A text that shares no word sequence with the others."""
    words = [f"{word}{number * 7919 % 9973}" for word in ("alpha", "beta", "gamma")]
    return DIFFERENT[number % len(DIFFERENT)].format(*words) + f", as chapter {number} tells."


@pytest.fixture
def recipe_with(tmp_path: Path, raw: dict[str, Any]) -> Callable[..., Recipe]:
    """The tiny recipe on one source of one's own; other keys of `corpus` through `corpus=`."""

    def make(corpus: dict[str, Any] | None = None, **source: Any) -> Recipe:
        raw["corpus"]["sources"] = [{"name": "mine", "licence": "CC0-1.0", **source}]
        raw["corpus"] |= corpus or {}
        return read_recipe(write_recipe(tmp_path, raw))

    return make


def build(recipe: Recipe, workspace: Workspace) -> dict[str, Artefact]:
    """The corpus and all that it rests on, by name."""
    runner = Runner(workspace, logging.getLogger("test"))
    return {step.name: runner.make(step) for step in all_steps(corpus_step(recipe))}


def rows_of(made: dict[str, Artefact]) -> list[dict[str, Any]]:
    return pq.read_table(made["corpus"].folder / CORPUS_FILE).to_pylist()


def funnel_of(made: dict[str, Artefact]) -> dict[str, int]:
    rows = pq.read_table(made["corpus"].folder / FUNNEL_FILE).to_pylist()
    return {row["rule"]: row["texts"] for row in rows}


def dropped_of(made: dict[str, Artefact]) -> list[dict[str, Any]]:
    files = [artefact.folder / "dropped.parquet" for artefact in made.values()]
    return [row for file in files if file.is_file() for row in pq.read_table(file).to_pylist()]
