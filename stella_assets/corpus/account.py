"""What happened to a text: whether the corpus has it, under which id, or which rule took it."""

from __future__ import annotations

import re
from typing import Any

import polars as pl

from stella_assets.core.step import Artefact, NotMaterialisedError, Runner, Step, all_steps
from stella_assets.corpus.build import CORPUS_FILE, corpus_step
from stella_assets.corpus.clean import repair
from stella_assets.corpus.cleaned import DROPPED_FILE, KIND, read_shards
from stella_assets.corpus.text import text_id
from stella_assets.corpus.words import match_form, match_keys
from stella_assets.recipe import Recipe
from storage.shards import ShardStore

ID = re.compile(r"[0-9a-f]{16,32}")


def why(recipe: Recipe, text_or_id: str, runner: Runner, *later: Step) -> list[dict[str, Any]]:
    """Every trace of a text, named by itself or by its id (16 digits are enough), in the order of the steps.

    A text that differs only in case, punctuation or spacing counts as the same one. `later` are steps after the corpus
    that leave texts out; those not made yet say nothing.

    Raises:
        NotMaterialisedError: The recipe's corpus was not made yet.
    """
    made = {step.name: runner.find(step) for step in all_steps(corpus_step(recipe))}
    corpus, cleaned = made["corpus"], made["cleaned_texts"]
    if corpus is None or cleaned is None:
        raise NotMaterialisedError(
            f"{recipe.name}: the corpus was not made for this recipe as it stands. "
            f"Run `stella run {recipe.name} --select corpus`."
        )
    ids = [text_or_id] if ID.fullmatch(text_or_id) else _ids_of(text_or_id, recipe, cleaned, runner)
    before, after = [artefact for artefact in made.values() if artefact], [runner.find(step) for step in later]
    found = [
        trace
        for key in ids
        for traces in (
            *(_dropped(key, artefact, "dropped") for artefact in before),
            _in_corpus(key, corpus),
            *(_dropped(key, artefact, "left out of training") for artefact in after if artefact),
        )
        for trace in traces
    ]
    return [dict(entries) for entries in dict.fromkeys(tuple(trace.items()) for trace in found)]


def _ids_of(text: str, recipe: Recipe, cleaned: Artefact, runner: Runner) -> list[str]:
    """The id of a text, and those of texts that differ from it in nothing but case, punctuation and spacing."""
    repaired = repair(pl.Series([text]), recipe.corpus.clean)
    (key,) = match_keys(match_form(repaired))
    store, ids = ShardStore(runner.workspace, KIND), [text_id(repaired[0])]
    for shard in read_shards(cleaned.folder):
        ids += store.read(shard.key, ["id", "key"]).filter(pl.col("key") == key)["id"].to_list()
    return list(dict.fromkeys(ids))


def _dropped(key: str, artefact: Artefact, verb: str) -> list[dict[str, Any]]:
    if not (artefact.folder / DROPPED_FILE).is_file():
        return []
    rows = pl.scan_parquet(artefact.folder / DROPPED_FILE).filter(pl.col("id").str.starts_with(key)).collect()
    return [
        {
            "id": row["id"], "what": f"{verb} by {artefact.name}: {row['rule']}", "value": row["value"],
            "detail": row["detail"] or "", "source": row["source"], "origin": row["origin"], "text": row["excerpt"],
        }
        for row in rows.to_dicts()
    ]  # fmt: skip


def _in_corpus(key: str, corpus: Artefact) -> list[dict[str, Any]]:
    mine = pl.col("id").str.starts_with(key) | pl.col("parent").str.starts_with(key)
    traces = []
    for row in pl.scan_parquet(corpus.folder / CORPUS_FILE).filter(mine).collect().to_dicts():
        made_of = f", {row['augmentation']} from {row['parent']}" if row["augmentation"] else ""
        traces.append(
            {
                "id": row["id"], "what": f"in the corpus, split {row['split']}{made_of}", "value": None, "detail": "",
                "source": row["source"], "origin": row["origin"], "text": row["text"][:120],
            }
        )  # fmt: skip
    return traces
