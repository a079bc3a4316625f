"""The asset `release`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from stella_assets.assets import step_asset
from stella_assets.recipe import Recipe
from stella_assets.release.publish import release_step
from stella_assets.step import Artefact


def release_assets(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """The published model folder."""
    return [
        step_asset(
            release_step(recipe),
            group="release",
            kinds={"huggingface"},
            description="The student as a SentenceTransformers folder: prompts, every head, a model card, its lineage.",
            checks={
                "sentence_transformers_gives_the_same_vectors": "The folder, loaded afresh, gives the same vectors."
            },
            show=_show,
        )
    ]


def _show(artefact: Artefact) -> Mapping[str, Any]:
    card = (artefact.folder / "README.md").read_text(encoding="utf-8")
    return {"model_card": dg.MetadataValue.md(card.split("---\n", 2)[-1])}
