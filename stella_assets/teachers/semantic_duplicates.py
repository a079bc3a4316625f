"""Step `semantic_duplicates`: texts that a teacher finds too like another one; no stage trains on them.

Texts that are held out come first and all stay, so that nothing near them is trained on; then texts are ranked as for
near copies, by the order of sources, then by id.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from stella_assets.core.progress import progress_bar
from stella_assets.core.step import Artefact, BuildContext, Result, Step
from stella_assets.corpus.build import CORPUS_FILE, corpus_step
from stella_assets.corpus.cleaned import DROPPED_FILE, as_dropped, write_dropped
from stella_assets.corpus.read import CorpusTexts
from stella_assets.recipe import Recipe
from stella_assets.teachers.concatenate import concatenation_step, open_snapshot
from stella_assets.teachers.similarity import EXACT, NEAR, most_similar_before
from storage.database import to_keys
from storage.snapshot import Snapshot

CODE_VERSION = "1"
RULE = "semantic duplicate"
ROWS_AT_ONCE = 65_536


def semantic_duplicates_step(recipe: Recipe) -> Step | None:
    """The step that makes `semantic_duplicates`; None where the recipe does not ask for it."""
    semantic = recipe.corpus.semantic
    if semantic is None or semantic.duplicates is None:
        return None
    return Step(
        recipe=recipe.name,
        name="semantic_duplicates",
        code_version=CODE_VERSION,
        settings={
            "teacher": semantic.teacher,
            "cosine": semantic.duplicates,
            "order": [source.name for source in recipe.corpus.sources],
        },
        needs=(corpus_step(recipe), concatenation_step(recipe)),
        build=lambda context: _find(recipe, context),
    )


def rows_left_out(artefact: Artefact, snapshot: Snapshot) -> np.ndarray:
    """Rows of a snapshot that `semantic_duplicates` wants no stage to train on."""
    ids = pq.read_table(artefact.folder / DROPPED_FILE, columns=["id"]).column("id")
    return np.searchsorted(snapshot.keys, to_keys(ids))


def _find(recipe: Recipe, context: BuildContext) -> Result:
    semantic = recipe.corpus.semantic
    assert semantic is not None
    assert semantic.duplicates is not None
    snapshot = open_snapshot(recipe, context.inputs["concatenated_vectors"].manifest.identity.key, context.workspace)
    order, held_out = _ranked(context.inputs["corpus"], [source.name for source in recipe.corpus.sources])
    comparisons = len(order) * (1 if len(order) <= EXACT else NEAR)
    with progress_bar(comparisons, "semantic_duplicates", "comparisons") as bar:
        cosines, places = most_similar_before(
            lambda rows: snapshot.vectors(rows, [semantic.teacher]), order, bar.update
        )
    cosines[:held_out] = -1
    copies = np.flatnonzero(cosines >= semantic.duplicates)
    found = pl.DataFrame(
        {"row": order[copies], "kept": order[places[copies]], "value": np.round(cosines[copies].astype(np.float64), 4)}
    )
    texts = CorpusTexts(context.inputs["corpus"])
    write_dropped(context, _with_texts(found.sort("row"), texts, snapshot.keys))
    context.log.info(f"semantic_duplicates: {len(found):,} of {len(texts) - held_out:,} training texts are left out")
    return Result(
        metrics={
            "texts": len(texts),
            "texts_train": len(texts) - held_out,
            "left_out": len(found),
            "share_left_out": round(len(found) / max(len(texts) - held_out, 1), 4),
        }
    )


def _ranked(corpus: Artefact, sources: list[str]) -> tuple[np.ndarray, int]:
    """Rows by rank, and how many of them are held out."""
    texts = pl.read_parquet(corpus.folder / CORPUS_FILE, columns=["split", "source"])
    ranks = texts.select(
        train=pl.col("split") == "train",
        source=pl.col("source").replace_strict({name: i for i, name in enumerate(sources)}, return_dtype=pl.UInt16),
    )
    rows = ranks.with_row_index("row").sort("train", "source", "row")["row"]
    return rows.to_numpy().astype(np.int64), int((texts["split"] != "train").sum())


def _with_texts(found: pl.DataFrame, texts: CorpusTexts, keys: np.ndarray) -> Iterator[pl.DataFrame]:
    """What is left out, as the table of dropped texts shows it."""
    for rows in found.iter_slices(ROWS_AT_ONCE):
        known = pl.DataFrame(texts.take(rows["row"].to_numpy(), ["id", "text", "source", "section", "role", "origin"]))
        kept = keys[rows["kept"].to_numpy()].tobytes()
        detail = pl.Series("detail", [f"like {kept[start : start + 8].hex()}" for start in range(0, len(kept), 16)])
        yield as_dropped(known.with_columns(rows["value"], detail, rule=pl.lit(RULE)))
