"""Evaluation data of three task types, built from the corpus' test split, which no student has seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stella_assets.corpus.build import corpus_step, read_texts
from stella_assets.corpus.text import first_sentence, text_id, uniform
from stella_assets.manifest import Check
from stella_assets.recipe import Recipe, TaskKind
from stella_assets.step import Artefact, Result, Step, Workbench

CODE_VERSION = "1"
MIN_SENTENCE_CHARS = 15
TRAINING_EXAMPLES = 8
"""Examples a label that mteb's classification task trains on; rarer labels are left out."""

TaskRows = dict[str, list[Any]]
Text = dict[str, str]


class TaskDataError(ValueError):
    """The test split is too small or too uniform for a task."""


def tasks_step(recipe: Recipe) -> Step:
    """The step that makes `evaluation_tasks`."""
    return Step(
        recipe=recipe.name,
        name="evaluation_tasks",
        code_version=CODE_VERSION,
        settings=recipe.evaluation.settings("query_prompt"),
        needs=(corpus_step(recipe),),
        build=lambda bench: _build_tasks(recipe, bench),
    )


def read_task(artefact: Artefact, name: str) -> pa.Table:
    """One table of the task data: `retrieval_queries`, `retrieval_corpus`, `classification`, `pair_classification`."""
    return pq.read_table(artefact.folder / f"{name}.parquet")


def _build_tasks(recipe: Recipe, bench: Workbench) -> Result:
    columns = ["id", "text", "section", "role", "split"]
    rows = read_texts(bench.inputs["corpus"], columns).to_pylist()
    trained_on = {row["id"] for row in rows if row["split"] != "test"}
    documents = [row for row in rows if row["split"] == "test" and row["role"] == "document"]
    documents.sort(key=lambda row: uniform("evaluation", row["id"]))
    documents = documents[: recipe.evaluation.max_documents]
    halves = _sentence_and_rest(documents, trained_on)
    tables: dict[str, TaskRows] = {}
    made: list[TaskKind] = []
    for kind, build in BUILDERS.items():
        if kind in (recipe.evaluation.tasks or BUILDERS):
            try:
                tables |= build(documents, halves)
            except TaskDataError as error:
                if recipe.evaluation.tasks:
                    raise
                bench.log.info(f"left out: {error}")
            else:
                made.append(kind)
    if not made:
        raise TaskDataError("evaluation.tasks: the test split serves none. Raise `corpus.test`, or add texts.")
    for name, table in tables.items():
        pq.write_table(pa.table(table), bench.folder / f"{name}.parquet")
    queries = tables.get("retrieval_queries", {"id": []})["id"]
    shared = len(trained_on.intersection(queries))
    return Result(
        facts={"tasks": made, **{name: len(next(iter(table.values()))) for name, table in tables.items()}},
        checks=(Check("no_query_was_trained_on", shared == 0, f"{shared} retrieval queries are in train or dev"),),
    )


def _sentence_and_rest(documents: Iterable[Text], trained_on: set[str]) -> list[Text]:
    """Documents with a first sentence of their own and more to say; neither part may be a training text."""
    found: dict[str, dict[str, str]] = {}
    for row in documents:
        sentence, rest = first_sentence(row["text"])
        sentence = " ".join(sentence.split())
        parts = {text_id(sentence), text_id(rest)}
        if min(len(sentence), len(rest)) < MIN_SENTENCE_CHARS or parts & trained_on or text_id(sentence) in found:
            continue
        found[text_id(sentence)] = {"id": row["id"], "section": row["section"], "sentence": sentence, "rest": rest}
    return list(found.values())


def _retrieval(_documents: list[Text], halves: list[Text]) -> dict[str, TaskRows]:
    """Find the rest of a document by its first sentence, among the rests of all documents."""
    if len(halves) < 10:
        raise TaskDataError(
            f"evaluation.tasks: retrieval needs 10 test documents of two sentences, the corpus has {len(halves)}. "
            "Raise `corpus.test`, add texts, or remove the task."
        )
    ids = [text_id(half["rest"]) for half in halves]
    corpus = dict(zip(ids, (half["rest"] for half in halves), strict=True))
    return {
        "retrieval_queries": {
            "id": [text_id(half["sentence"]) for half in halves],
            "text": [half["sentence"] for half in halves],
            "document": ids,
        },
        "retrieval_corpus": {"id": list(corpus), "text": list(corpus.values())},
    }


def _classification(documents: list[Text], _halves: list[Text]) -> dict[str, TaskRows]:
    """Say which section (package, file, subset) a document is from; half of the documents teach the classifier."""
    splits = ["train" if uniform("classifier", row["id"]) < 0.5 else "test" for row in documents]
    counts = Counter((row["section"], split) for row, split in zip(documents, splits, strict=True))
    labels = sorted({s for s, _ in counts if counts[s, "train"] >= TRAINING_EXAMPLES and counts[s, "test"]})
    if len(labels) < 2:
        raise TaskDataError(
            f"evaluation.tasks: classification needs two sections with {TRAINING_EXAMPLES} test documents to learn "
            f"from; the corpus has {len(labels)}. Add sources, raise `corpus.test`, or remove the task."
        )
    kept = [(row, split) for row, split in zip(documents, splits, strict=True) if row["section"] in labels]
    table: TaskRows = {
        "text": [row["text"] for row, _ in kept],
        "label": [labels.index(row["section"]) for row, _ in kept],
        "label_text": [row["section"] for row, _ in kept],
        "split": [split for _, split in kept],
    }
    return {"classification": table}


def _pair_classification(_documents: list[Text], halves: list[Text]) -> dict[str, TaskRows]:
    """Do a first sentence and a rest belong together? Wrong rests are of the same section: topic does not tell."""
    by_section: dict[str, list[Text]] = {}
    for half in halves:
        by_section.setdefault(half["section"], []).append(half)
    pairs = []
    for members in by_section.values():
        if len(members) < 2:
            continue
        for half, other in zip(members, members[1:] + members[:1], strict=True):
            pairs.append((half["sentence"], half["rest"], 1))
            pairs.append((half["sentence"], other["rest"], 0))
    if not pairs:
        raise TaskDataError(
            "evaluation.tasks: pair_classification needs two test documents of two sentences in one section. "
            "Raise `corpus.test`, add texts, or remove the task."
        )
    first, second, labels = zip(*pairs, strict=True)
    return {"pair_classification": {"sentence1": list(first), "sentence2": list(second), "labels": list(labels)}}


BUILDERS: dict[TaskKind, Callable[[list[Text], list[Text]], dict[str, TaskRows]]] = {
    "retrieval": _retrieval,
    "classification": _classification,
    "pair_classification": _pair_classification,
}
