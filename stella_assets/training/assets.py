"""The assets `stage_1`, `stage_2` and so on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from stella_assets import plots
from stella_assets.assets import picture, step_asset
from stella_assets.core.step import Artefact
from stella_assets.recipe import Recipe, Stage
from stella_assets.training.stages import LOG_FILE, stage_step
from stella_assets.training.tokens import tokens_step

JASPER = "[Jasper and Stella](https://arxiv.org/abs/2412.19048)"
MATRYOSHKA = "[Matryoshka](https://arxiv.org/abs/2205.13147)"


def training_assets(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """The tokens, and one asset a stage."""
    tokens = step_asset(
        tokens_step(recipe),
        group="training",
        kinds={"arrow"},
        description="The corpus as the student's tokenizer sees it, once for all stages.",
        checks={"no_text_is_too_long": "No text has more tokens than the student takes."},
    )
    stages = [
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
    return [tokens, *stages]


def _describe(stage: Stage) -> str:
    if stage.method == "closed_form":
        return f"Solves the teacher head by ridge regression on the frozen encoder's states, in place of {JASPER}."
    trained = {0: "the teacher head", 1: "the teacher head and the last layer", "all": "the whole student"}.get(
        stage.train_layers, f"the teacher head and the last {stage.train_layers} layers"
    )
    heads = f" and the short heads ({MATRYOSHKA})" if stage.matryoshka_heads else ""
    length = f"{stage.steps:,} steps" if stage.steps else f"{stage.texts:,} texts"
    batch = f"{stage.batch} texts" if stage.batch else f"{stage.batch_tokens:,} tokens"
    return f"Trains {trained}{heads}: {length} in batches of {batch}. A stage as in {JASPER}."


def _show(artefact: Artefact) -> Mapping[str, Any]:
    import pyarrow.parquet as pq

    log = pq.read_table(artefact.folder / LOG_FILE).to_pylist()
    return {"loss": picture(plots.loss_curves(log), "loss")}
