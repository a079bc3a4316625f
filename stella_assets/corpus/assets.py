"""The asset `corpus`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from stella_assets.assets import picture, step_asset
from stella_assets.corpus.build import FUNNEL_FILE, corpus_step
from stella_assets.recipe import Recipe
from stella_assets.step import Artefact
from storage.statistics import TEXTS


def corpus_assets(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """Texts with id, source, role and split."""
    return [
        step_asset(
            corpus_step(recipe),
            group="corpus",
            kinds={"parquet"},
            description="The texts to learn from: normalised, each once, split by hash into train, dev and test.",
            checks={
                "ids_are_unique": "Every text is there once.",
                "every_split_has_texts": "Train, dev and test all have texts.",
            },
            show=_show,
        )
    ]


def _show(artefact: Artefact) -> Mapping[str, Any]:
    import pyarrow.parquet as pq

    from stella_assets import plots

    columns = [dg.TableColumn(field.name, str(field.type)) for field in TEXTS]
    funnel = pq.read_table(artefact.folder / FUNNEL_FILE).to_pylist()
    return {
        "dagster/column_schema": dg.TableSchema(columns),
        "funnel": picture(plots.corpus_funnel(funnel), "corpus funnel"),
    }
