"""Step `contamination_suspects`: texts that a teacher finds similar to an evaluation text, as a list to look at.

Nothing is removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pyarrow.parquet as pq

from stella_assets.core.present import Rows, Shown
from stella_assets.core.progress import progress_bar
from stella_assets.core.step import Artefact, BuildContext, Presentation, Result, Step
from stella_assets.corpus.dropped import SHOWN_EXAMPLES, excerpt
from stella_assets.corpus.evaluation_texts import EvaluationTexts
from stella_assets.corpus.read import CorpusTexts
from stella_assets.corpus.settings import Decontaminate, Semantic
from stella_assets.storage.polars import pl
from stella_assets.teachers.kinds.base import TeacherConfig
from stella_assets.teachers.refusal import Texts
from stella_assets.teachers.similarity import similar_pairs
from stella_assets.teachers.snapshot import Snapshot
from stella_assets.teachers.tables import SUSPECTS
from stella_assets.teachers.teacher_vectors import TeacherVectors

CODE_VERSION = "1"
NAME = "contamination_suspects"
SUSPECTS_FILE = SUSPECTS.file
MOST = 5
"""Suspects of one evaluation text."""
# Vectors in memory at a time.
ROWS_AT_ONCE = 4096


def suspects_step(
    recipe: str,
    *,
    semantic: Semantic,
    decontaminate: Decontaminate,
    teacher: TeacherConfig,
    vectors: Step[TeacherVectors],
    corpus: Step[CorpusTexts],
    evaluation_texts: Step[EvaluationTexts],
    concatenation: Step[Snapshot],
) -> Step[Artefact]:
    """The step that lists texts similar to an evaluation text.

    Args:
        recipe: Name of the recipe.
        semantic: The cosine from which a text is listed; it must have one.
        decontaminate: Which evaluation texts nobody may train on.
        teacher: The teacher whose vectors are compared.
        vectors: The step that makes its vectors; it encodes the evaluation texts, too.
        corpus: The step that makes the corpus.
        evaluation_texts: The step that reads the evaluation sets.
        concatenation: The step that makes the snapshot.

    Returns:
        A step that writes the table `suspects`, the most similar pairs first.
    """
    min_cosine = semantic.suspects
    assert min_cosine is not None, "the recipe asks for suspects"

    def build(context: BuildContext) -> Result:
        evaluation = context.read(evaluation_texts).with_policies(decontaminate.sets).filter("drops")
        # Tasks share texts; each is encoded and compared once. Sorted, as `unique` gives no fixed order.
        distinct = evaluation["text"].unique().sort()
        context.log.info(f"{NAME}: comparing with {len(distinct):,} evaluation texts")
        opened, snapshot = context.read(vectors), context.read(concatenation)
        # No evaluation text is dropped by the recipe's policies: there is nothing to encode.
        others = np.empty((0, opened.dim), np.float16)
        if len(distinct):
            others = opened.embed(distinct.to_list(), "document", context.compute.on_behalf_of(recipe))
        with progress_bar(len(snapshot), NAME, "texts") as bar:
            blocks = _blocks(snapshot, teacher.name, bar.update)
            pairs = similar_pairs(blocks, others, min_cosine, MOST, context.compute)
        texts = snapshot.of_corpus(context.read(corpus))
        SUSPECTS.write(context.folder, _as_table(pairs, distinct, evaluation, texts).to_arrow())
        return Result(
            metrics={
                "evaluation_texts": len(distinct),
                "evaluation_texts_with_suspects": len(np.unique(pairs["other"])),
                "suspects": len(np.unique(pairs["text"])),
            }
        )

    return Step(
        recipe=recipe,
        name=NAME,
        code_version=CODE_VERSION,
        settings={"teacher": semantic.teacher, "cosine": min_cosine, "most": MOST},
        build=build,
        presentation=Presentation(
            group="teachers",
            description="Texts that a teacher finds similar to an evaluation text: a list to look at, nothing is "
            "removed.",
            kinds=frozenset({"lancedb", "parquet"}),
            show=_show,
        ),
        dependencies=(corpus, evaluation_texts, vectors, concatenation),
        priority=1,
    )


def _as_table(pairs: np.ndarray, distinct: pl.Series, evaluation: pl.DataFrame, texts: Texts) -> pl.DataFrame:
    """Pairs of a text and an evaluation text as rows for people, the most similar ones first."""
    # `take` of a corpus needs ascending positions; `place` leads back to the pairs.
    rows, place = np.unique(pairs["text"], return_inverse=True)
    columns = ["id", "source", "text"]
    known = pl.DataFrame(texts.take(rows, columns)).select(columns)
    return (
        known[place]
        .with_columns(
            evaluation_text=distinct.gather(pairs["other"]),
            cosine=pl.Series(np.round(pairs["cosine"].astype(np.float64), 4)),
        )
        # One row per task that has the text.
        .join(evaluation.rename({"text": "evaluation_text", "set": "evaluation"}), on="evaluation_text")
        .select(
            "id", "source", "evaluation", "task", "split", "role", "cosine", excerpt("text").alias("excerpt"),
            excerpt("evaluation_text").alias("evaluation_excerpt"),
        )
        # A total order: the file must have the same bytes in every run.
        .sort("cosine", "id", "evaluation", "task", "split", "evaluation_excerpt", descending=[True] + [False] * 5)
    )  # fmt: skip


def _blocks(snapshot: Snapshot, teacher: str, on_rows: Callable[[int], object]) -> Iterator[np.ndarray]:
    """The teacher's vectors in the order of ids."""
    for start in range(0, len(snapshot), ROWS_AT_ONCE):
        block = snapshot.vectors(np.arange(start, min(start + ROWS_AT_ONCE, len(snapshot))), [teacher])
        yield block
        on_rows(len(block))


def _show(artefact: Artefact) -> Mapping[str, Shown]:
    columns = ["task", "cosine", "excerpt", "evaluation_excerpt"]
    suspects = pq.read_table(artefact.folder / SUSPECTS_FILE, columns=columns)
    by_task = suspects.group_by("task").aggregate([("cosine", "count"), ("cosine", "max")]).sort_by("task")
    return {"tasks": Rows(by_task.to_pylist()), "most_similar": Rows(suspects.slice(0, SHOWN_EXAMPLES).to_pylist())}
