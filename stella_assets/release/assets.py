"""The assets `mteb/released`, `release_gate` and `release`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
import pyarrow.parquet as pq

from stella_assets.assets import step_asset, table
from stella_assets.core.step import Artefact
from stella_assets.recipe import Recipe
from stella_assets.release.gate import CHECKS, VERDICTS_FILE, gate_step
from stella_assets.release.publish import DRIFT_FILE, release_step
from stella_assets.release.released import released_step


def release_assets(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """What is released now, the gate, and the published model folder."""
    return [
        step_asset(
            released_step(recipe),
            group="release",
            kinds={"mteb"},
            description="mteb scores of what is released now, on the tasks of now: what a new release is held against.",
            checks={"scores_are_in_range": "Every score lies between 0 and 1, correlations above -1."},
        ),
        step_asset(
            gate_step(recipe),
            group="release",
            kinds={"parquet"},
            description="What a release must show, held against resampled scores. A failing check stops the release.",
            checks=CHECKS,
            blocking=set(CHECKS),
            show=_show_gate,
        ),
        step_asset(
            release_step(recipe),
            group="release",
            kinds={"huggingface"},
            description="The student as a [SentenceTransformers](https://sbert.net) folder: prompts, every head, a "
            "model card, its lineage.",
            checks={
                "every_loader_gives_the_same_vectors": "sentence-transformers at every dimension, transformers with "
                "the head, and ONNX Runtime, in a clean process: cosine 0.99999 with what was scored.",
                "int8_drifts_little": "ONNX with int8 weights gives nearly the same vectors.",
            },
            show=_show,
        ),
    ]


def _show_gate(artefact: Artefact) -> Mapping[str, Any]:
    return {"verdicts": table(pq.read_table(artefact.folder / VERDICTS_FILE).to_pylist())}


def _show(artefact: Artefact) -> Mapping[str, Any]:
    card = (artefact.folder / "README.md").read_text(encoding="utf-8")
    loaders = pq.read_table(artefact.folder / DRIFT_FILE).to_pylist()
    return {"loaders": table(loaders), "model_card": dg.MetadataValue.md(card.split("---\n", 2)[-1])}
