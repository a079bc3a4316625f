"""The assets of the corpus: what is read, what of it is contaminated or a copy, and the corpus itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from stella_assets.assets import picture, step_asset, table
from stella_assets.core.step import Artefact
from stella_assets.corpus.build import FUNNEL_FILE, LICENCES_FILE, corpus_step
from stella_assets.corpus.cleaned import DROPPED_FILE, cleaned_step
from stella_assets.corpus.contamination import TASKS_FILE, contamination_step
from stella_assets.corpus.duplicates import duplicates_step
from stella_assets.corpus.evaluation_sets import evaluation_step
from stella_assets.recipe import Recipe
from storage.statistics import TEXTS

EXAMPLES = 12


def corpus_assets(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """Cleaned texts, contamination if the recipe names evaluation sets, duplicates, and the corpus."""
    made = [
        step_asset(
            cleaned_step(recipe),
            group="corpus",
            kinds={"polars", "parquet"},
            description="Every source read, its texts repaired and judged by the rules of their role, shard by shard.",
            checks={},
            show=show_dropped,
        )
    ]
    if recipe.corpus.decontaminate:
        made += [
            step_asset(
                evaluation_step(recipe),
                group="corpus",
                kinds={"parquet"},
                description="Every text of the evaluation sets that nobody may train on.",
                checks={},
            ),
            step_asset(
                contamination_step(recipe),
                group="corpus",
                kinds={"polars", "parquet"},
                description="Which texts equal, hold or nearly copy an evaluation text, and which of them go.",
                checks={
                    "planted_evaluation_texts_are_found": "Evaluation texts are found where they were planted.",
                },
                blocking={"planted_evaluation_texts_are_found"},
                show=_show_contamination,
            ),
        ]
    return [
        *made,
        step_asset(
            duplicates_step(recipe),
            group="corpus",
            kinds={"polars", "parquet"},
            description="Equal texts and near copies across sources: [MinHash](https://arxiv.org/abs/2107.06499), "
            "verified by exact Jaccard similarity.",
            checks={},
            show=show_dropped,
        ),
        step_asset(
            corpus_step(recipe),
            group="corpus",
            kinds={"parquet"},
            description="The texts to learn from: mixed, each once, split by hash into train, dev and test.",
            checks={
                "ids_are_unique": "Every text is there once.",
                "every_split_has_texts": "Train, dev and test all have texts.",
                "no_evaluation_text_is_there": "No text equals an evaluation text that the recipe wants dropped.",
            },
            blocking={"no_evaluation_text_is_there"},
            show=_show_corpus,
        ),
    ]


def show_dropped(artefact: Artefact) -> Mapping[str, Any]:
    """Counts by source and rule of what a step dropped, and examples."""
    import polars as pl

    dropped = pl.scan_parquet(artefact.folder / DROPPED_FILE)
    counts = dropped.group_by("source", "rule").agg(texts=pl.len()).sort("source", "rule").collect()
    examples = dropped.select("rule", "value", "detail", "excerpt").head(EXAMPLES).collect()
    return {"dropped": table(counts.to_dicts()), "examples": table(examples.to_dicts())}


def _show_contamination(artefact: Artefact) -> Mapping[str, Any]:
    import polars as pl

    by_task = pl.read_parquet(artefact.folder / TASKS_FILE)
    return {"tasks": table(by_task.to_dicts()), **show_dropped(artefact)}


def _show_corpus(artefact: Artefact) -> Mapping[str, Any]:
    import polars as pl
    import pyarrow.parquet as pq

    from stella_assets import plots

    columns = [dg.TableColumn(field.name, str(field.type)) for field in TEXTS]
    funnel = pq.read_table(artefact.folder / FUNNEL_FILE).to_pylist()
    return {
        "dagster/column_schema": dg.TableSchema(columns),
        "funnel": picture(plots.corpus_funnel(funnel), "corpus funnel"),
        "licences": table(pl.read_parquet(artefact.folder / LICENCES_FILE).to_dicts()),
    }
