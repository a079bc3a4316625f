"""The assets `stage_1`, `stage_2` and so on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from stella_assets import plots
from stella_assets.assets import picture, step_asset
from stella_assets.recipe import Recipe, Stage
from stella_assets.step import Artefact
from stella_assets.training.stages import LOG_FILE, stage_step


def training_assets(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """One asset a stage."""
    return [
        step_asset(
            stage_step(recipe, number),
            group="training",
            kinds={"pytorch"},
            description=_describe(stage),
            checks={"dev_loss_fell": "The loss on held-out texts is lower than before the stage."},
            show=_show,
        )
        for number, stage in enumerate(recipe.stages, 1)
    ]


def _describe(stage: Stage) -> str:
    trained = {0: "the teacher head", "all": "the whole student"}.get(
        stage.train_layers, f"the teacher head and the last {stage.train_layers} layers"
    )
    heads = " and the short heads" if stage.short_heads else ""
    return f"Trains {trained}{heads}: {stage.steps:,} steps of {stage.batch_texts} texts."


def _show(artefact: Artefact) -> Mapping[str, Any]:
    import pyarrow.parquet as pq

    log = pq.read_table(artefact.folder / LOG_FILE).to_pylist()
    return {"loss": picture(plots.loss_curves(log), "loss")}
