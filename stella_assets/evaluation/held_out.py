"""Evaluation data of three task types, built from the corpus' test split, which no student has seen."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import polars as pl

from stella_assets.core.manifest import Check
from stella_assets.core.step import Artefact
from stella_assets.corpus.build import read_texts
from stella_assets.corpus.text import first_sentence, text_id, uniform
from stella_assets.evaluation.local_data import TaskDataError
from stella_assets.recipe import HeldOut, HeldOutKind

MIN_SENTENCE_CHARS = 15
TRAINING_EXAMPLES = 8
"""Examples a label that mteb's classification task trains on; rarer labels are left out."""
NAMES: dict[HeldOutKind, str] = {
    "retrieval": "HeldOutRetrieval",
    "classification": "HeldOutClassification",
    "pair_classification": "HeldOutPairClassification",
}

PROBE_TEXTS = 128

Tables = dict[str, pl.DataFrame]
Text = dict[str, str]


def write_held_out(
    wanted: HeldOut, corpus: Artefact, folder: Path, log: logging.Logger | logging.LoggerAdapter
) -> Check:
    """Write the tables of each kind in the layout of `local_data`.

    Raises:
        TaskDataError: The test split is too small or too uniform for a kind that the recipe names, or for all.
    """
    columns = ["id", "text", "section", "role", "split"]
    rows = read_texts(corpus, columns).to_pylist()
    trained_on = {row["id"] for row in rows if row["split"] != "test"}
    documents = [row for row in rows if row["split"] == "test" and row["role"] == "document"]
    documents.sort(key=lambda row: uniform("evaluation", row["id"]))
    documents = documents[: wanted.max_documents]
    halves = _sentence_and_rest(documents, trained_on)
    tables: Tables = {}
    for kind, build in BUILDERS.items():
        if kind in (wanted.kinds or BUILDERS):
            try:
                tables |= build(documents, halves)
            except TaskDataError as error:
                if wanted.kinds:
                    raise
                log.info(f"left out: {error}")
    if not tables:
        raise TaskDataError("evaluation.held_out: the test split serves no task. Raise `corpus.test`, or add texts.")
    for name, table in tables.items():
        path = folder / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        table.write_parquet(path)
    queries = tables.get("HeldOutRetrieval/queries")
    shared = 0 if queries is None else len(trained_on.intersection(queries["id"]))
    return Check(
        "no_query_was_trained_on", shared == 0, f"{shared} retrieval queries are in train or dev", {"shared": shared}
    )


def probe_texts(corpus: Artefact) -> list[str]:
    """Some test documents, or others where there are few: what speed and loaders of models are tried on."""
    rows = pl.from_arrow(read_texts(corpus, ["id", "text", "split", "role"]))
    assert isinstance(rows, pl.DataFrame)
    wanted = (pl.col("split") == "test") & (pl.col("role") == "document")
    order = [uniform("probe", each) for each in rows["id"]]
    return rows.with_columns(order=pl.Series(order)).sort(~wanted, "order").head(PROBE_TEXTS)["text"].to_list()


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


def _retrieval(_documents: list[Text], halves: list[Text]) -> Tables:
    """Find the rest of a document by its first sentence, among the rests of all documents."""
    if len(halves) < 10:
        raise TaskDataError(
            f"evaluation.held_out: retrieval needs 10 test documents of two sentences, the corpus has {len(halves)}. "
            "Raise `corpus.test`, add texts, or remove the task."
        )
    ids = [text_id(half["rest"]) for half in halves]
    corpus = dict(zip(ids, (half["rest"] for half in halves), strict=True))
    queries = {text_id(half["sentence"]): half["sentence"] for half in halves}
    return {
        "HeldOutRetrieval/queries": pl.DataFrame({"id": list(queries), "text": list(queries.values())}),
        "HeldOutRetrieval/corpus": pl.DataFrame({"id": list(corpus), "text": list(corpus.values())}),
        "HeldOutRetrieval/qrels": pl.DataFrame({"query_id": list(queries), "doc_id": ids, "score": 1}),
    }


def _classification(documents: list[Text], _halves: list[Text]) -> Tables:
    """Say which section (package, file, subset) a document is from; half of the documents teach the classifier."""
    splits = ["train" if uniform("classifier", row["id"]) < 0.5 else "test" for row in documents]
    counts = Counter((row["section"], split) for row, split in zip(documents, splits, strict=True))
    labels = sorted({s for s, _ in counts if counts[s, "train"] >= TRAINING_EXAMPLES and counts[s, "test"]})
    if len(labels) < 2:
        raise TaskDataError(
            f"evaluation.held_out: classification needs two sections with {TRAINING_EXAMPLES} test documents to learn "
            f"from; the corpus has {len(labels)}. Add sources, raise `corpus.test`, or remove the task."
        )
    kept = [(row, split) for row, split in zip(documents, splits, strict=True) if row["section"] in labels]
    table = {
        "text": [row["text"] for row, _ in kept],
        "label": [row["section"] for row, _ in kept],
        "split": [split for _, split in kept],
    }
    return {"HeldOutClassification": pl.DataFrame(table)}


def _pair_classification(_documents: list[Text], halves: list[Text]) -> Tables:
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
            "evaluation.held_out: pair_classification needs two test documents of two sentences in one section. "
            "Raise `corpus.test`, add texts, or remove the task."
        )
    first, second, labels = zip(*pairs, strict=True)
    table = pl.DataFrame({"sentence1": list(first), "sentence2": list(second), "label": list(labels)})
    return {"HeldOutPairClassification": table}


BUILDERS: dict[HeldOutKind, Callable[[list[Text], list[Text]], Tables]] = {
    "retrieval": _retrieval,
    "classification": _classification,
    "pair_classification": _pair_classification,
}
