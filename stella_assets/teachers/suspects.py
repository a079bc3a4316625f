"""Step `contamination_suspects`: texts that a teacher finds like an evaluation text, to look at; nothing goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl

from stella_assets.core.progress import progress_bar
from stella_assets.core.step import BuildContext, Result, Step
from stella_assets.corpus.build import corpus_step
from stella_assets.corpus.cleaned import excerpt
from stella_assets.corpus.contamination import read_evaluation
from stella_assets.corpus.evaluation_sets import evaluation_step
from stella_assets.corpus.read import CorpusTexts
from stella_assets.recipe import Recipe, Teacher
from stella_assets.teachers.concatenate import concatenation_step, open_snapshot
from stella_assets.teachers.encode import TeacherVectors, teacher_step
from stella_assets.teachers.similarity import similar_pairs
from storage.snapshot import Snapshot
from storage.statistics import SUSPECTS, write_table

CODE_VERSION = "1"
SUSPECTS_FILE = "suspects.parquet"
MOST = 5
"""Suspects of one evaluation text."""
ROWS_AT_ONCE = 4096


def suspects_step(recipe: Recipe) -> Step | None:
    """The step that makes `contamination_suspects`; None where the recipe does not ask for it."""
    semantic = recipe.corpus.semantic
    if semantic is None or semantic.suspects is None:
        return None
    teacher = next(teacher for teacher in recipe.teachers if teacher.name == semantic.teacher)
    return Step(
        recipe=recipe.name,
        name="contamination_suspects",
        code_version=CODE_VERSION,
        settings={"teacher": semantic.teacher, "cosine": semantic.suspects, "most": MOST},
        needs=(
            corpus_step(recipe),
            evaluation_step(recipe),
            teacher_step(recipe, teacher),
            concatenation_step(recipe),
        ),
        build=lambda context: _find(recipe, teacher, context),
    )


def _find(recipe: Recipe, teacher: Teacher, context: BuildContext) -> Result:
    semantic, settings = recipe.corpus.semantic, recipe.corpus.decontaminate
    assert semantic is not None
    assert semantic.suspects is not None
    assert settings is not None
    evaluation = read_evaluation(context.inputs["evaluation_texts"], settings).filter("drops")
    distinct = evaluation["text"].unique().sort()
    vectors = TeacherVectors.open(teacher, context.inputs[f"teacher_vectors/{teacher.name}"], context.workspace)
    context.log.info(f"contamination_suspects: {len(distinct):,} evaluation texts to hold texts against")
    others = vectors.embed(distinct.to_list(), "document") if len(distinct) else np.empty((0, vectors.dim), np.float16)
    snapshot = open_snapshot(recipe, context.inputs["concatenated_vectors"].manifest.identity.key, context.workspace)
    with progress_bar(len(snapshot), "contamination_suspects", "texts") as bar:
        pairs = similar_pairs(_blocks(snapshot, teacher.name, bar.update), others, semantic.suspects, MOST)
    rows, place = np.unique(pairs["text"], return_inverse=True)
    columns = ["id", "source", "text"]
    known = pl.DataFrame(CorpusTexts(context.inputs["corpus"]).take(rows, columns)).select(columns)
    shown = (
        known[place]
        .with_columns(
            evaluation_text=distinct.gather(pairs["other"]),
            cosine=pl.Series(np.round(pairs["cosine"].astype(np.float64), 4)),
        )
        .join(evaluation.rename({"text": "evaluation_text", "set": "evaluation"}), on="evaluation_text")
        .select(
            "id", "source", "evaluation", "task", "split", "role", "cosine", excerpt("text").alias("excerpt"),
            excerpt("evaluation_text").alias("evaluation_excerpt"),
        )
        .sort("cosine", "id", "evaluation", "task", "split", "evaluation_excerpt", descending=[True] + [False] * 5)
    )  # fmt: skip
    write_table(context.folder / SUSPECTS_FILE, SUSPECTS, shown.to_arrow())
    return Result(
        metrics={
            "evaluation_texts": len(distinct),
            "evaluation_texts_with_suspects": len(np.unique(pairs["other"])),
            "suspects": len(rows),
        }
    )


def _blocks(snapshot: Snapshot, teacher: str, on_rows: Callable[[int], object]) -> Iterator[np.ndarray]:
    """The teacher's vectors in the order of ids."""
    for start in range(0, len(snapshot), ROWS_AT_ONCE):
        block = snapshot.vectors(np.arange(start, min(start + ROWS_AT_ONCE, len(snapshot))), [teacher])
        yield block
        on_rows(len(block))
