"""Held-out tasks: evaluation data of three task types from the corpus' test split, which no student has seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stella_assets.core.manifest import Check
from stella_assets.core.step import CheckSpec, Log
from stella_assets.corpus.sentences import first_sentence
from stella_assets.corpus.text import text_id, uniform, uniforms
from stella_assets.evaluation.held_out_pairs import Text, halves_of_pairs
from stella_assets.evaluation.kinds import TASK_KINDS
from stella_assets.evaluation.local_data import TaskDataError, locate
from stella_assets.evaluation.settings import HeldOut, HeldOutKind
from stella_assets.evaluation.tasks import EvaluationTask
from stella_assets.storage.polars import pl

if TYPE_CHECKING:
    from stella_assets.corpus.pairs import PairTables
    from stella_assets.corpus.read import CorpusTexts

# Shorter sentences are headings or list items, which say too little to find their document.
MIN_SENTENCE_CHARS = 15
TRAINING_EXAMPLES = 8
"""Examples per label that mteb's classification task trains on; rarer labels are left out."""
CHECK = CheckSpec("no_query_was_trained_on", "No retrieval query is a text of train or dev.")

Tables = dict[str, "pl.DataFrame"]


@dataclass(frozen=True)
class HeldOutTask:
    """One of the held-out tasks.

    Attributes:
        name: mteb's name of it.
        description: For mteb's metadata.
        build: Its tables by file name, from the test documents and from their halves: first sentence and rest, or
            query and answer where the corpus has pairs.
    """

    name: str
    description: str
    build: Callable[[list[Text], list[Text]], Tables]


def write_held_out(
    wanted: HeldOut, corpus: CorpusTexts, folder: Path, log: Log, pairs: PairTables | None = None
) -> Check:
    """Write the tables of each kind in the local layout.

    Args:
        wanted: The settings.
        corpus: The texts.
        folder: Of the artefact.
        log: Told which kinds are left out.
        pairs: Of the corpus; None where it has none.

    Returns:
        The check that no query is a text that students train on.

    Raises:
        TaskDataError: The test split is too small or too uniform for a kind that the recipe names, or for all.
    """
    answers = None if pairs is None else pairs.pairs().filter(split="test")["positive"].unique()
    documents = _test_documents(corpus, wanted.max_documents, answers)
    if pairs is None:
        trained_on = _trained_on(corpus, (part for row in documents for part in _part_ids(row["text"])))
        halves = _sentence_and_rest(documents, trained_on)
    else:
        halves = halves_of_pairs(pairs, corpus, documents)
        trained_on = _trained_on(corpus, (text_id(half["sentence"]) for half in halves))
    tables: Tables = {}
    for kind, task in HELD_OUT_TASKS.items():
        if kind in (wanted.kinds or HELD_OUT_TASKS):
            try:
                tables |= task.build(documents, halves)
            except TaskDataError as error:
                # A kind that the recipe names is required; by default a small corpus gets those that it has texts for.
                if wanted.kinds:
                    raise
                log.info(f"left out: {error}")
    if not tables:
        raise TaskDataError(
            "evaluation.held_out: the test split has too few texts for any task.", "Raise `corpus.test`, or add texts."
        )
    for name, table in tables.items():
        path = folder / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        table.write_parquet(path)
    queries = tables.get("HeldOutRetrieval/queries")
    # A query's id is the hash of its text, so equal ids mean equal texts.
    shared = 0 if queries is None else len(trained_on.intersection(queries["id"]))
    return Check(CHECK.name, shared == 0, f"{shared} retrieval queries are in train or dev", {"shared": shared})


def held_out_tasks(folder: Path) -> list[EvaluationTask]:
    """The tasks whose tables a folder contains.

    Args:
        folder: That `write_held_out` has written.

    Returns:
        The tasks without data, in the order of `HELD_OUT_TASKS`.
    """
    return [
        EvaluationTask(TASK_KINDS[kind].new_task(task.name, task.description), "held_out", place, reads_files=True)
        for kind, task in HELD_OUT_TASKS.items()
        if (place := locate(folder, task.name)) is not None
    ]


def held_out_types(wanted: HeldOut) -> set[str]:
    """mteb's types of the held-out tasks that a recipe asks for."""
    return {TASK_KINDS[kind].MTEB_TYPE for kind in wanted.kinds or HELD_OUT_TASKS}


def _test_documents(corpus: CorpusTexts, most: int, answers: pl.Series | None) -> list[Text]:
    """Test documents with `id`, `text` and `section`: first those that answer a query, each in the order of a hash."""
    import numpy as np

    # Ids and splits first: texts are read only of the documents that are chosen, however large the corpus is.
    found, start = [], 0
    for batch in corpus.scan(["id", "role", "split"]):
        rows = pl.DataFrame(batch).with_row_index("position", start)
        found.append(rows.filter(split="test", role="document").select("id", "position"))
        start += batch.num_rows
    candidates = pl.concat(found)
    # A hash decides the order, so that a grown corpus keeps most of the tasks' texts.
    hashed = uniforms("evaluation", candidates["id"])
    # Of a corpus whose sources state negatives, most documents answer nothing.
    later = np.zeros(len(hashed)) if answers is None else ~candidates["id"].is_in(answers.implode()).to_numpy()
    order = np.lexsort((hashed, later))[:most]
    chosen = candidates[order]
    rows = corpus.take(chosen["position"].sort().to_numpy(), ["id", "text", "section"]).to_pylist()
    by_id = {row["id"]: row for row in rows}
    return [by_id[each] for each in chosen["id"]]


def _trained_on(corpus: CorpusTexts, ids: Iterable[str]) -> set[str]:
    """Which of the ids are of texts of train or dev: the dev split decides which checkpoint is kept."""
    wanted = pl.Series(list(ids), dtype=pl.String).implode()
    seen = pl.col("id").is_in(wanted) & (pl.col("split") != "test")
    batches = corpus.scan(["id", "split"])
    return {each for batch in batches for each in pl.DataFrame(batch).filter(seen)["id"]}


def probe_texts(corpus: CorpusTexts) -> list[str]:
    """Some test documents, or others where there are few: to measure speed and to compare models.

    Args:
        corpus: The texts.

    Returns:
        At most 128 texts, the same for the same corpus.
    """
    import numpy as np

    from stella_assets.corpus.probe import probe_rows

    rows = probe_rows(pl.DataFrame(corpus.table(["id", "split", "role"])))
    places = np.sort(rows)
    texts = corpus.take(places, ["text"]).column("text").to_pylist()
    return [texts[i] for i in np.searchsorted(places, rows)]


def _parts(text: str) -> tuple[str, str]:
    """The first sentence, on one line, and the rest."""
    sentence, rest = first_sentence(text)
    return " ".join(sentence.split()), rest


def _part_ids(text: str) -> list[str]:
    return [text_id(part) for part in _parts(text)]


def _sentence_and_rest(documents: Iterable[Text], trained_on: set[str]) -> list[Text]:
    """Documents with a unique first sentence and a rest; neither of both may be a training text."""
    found: dict[str, dict[str, str]] = {}
    for row in documents:
        sentence, rest = _parts(row["text"])
        parts = {text_id(sentence), text_id(rest)}
        # A repeated first sentence has several correct rests, of which the judgements would name one.
        if min(len(sentence), len(rest)) < MIN_SENTENCE_CHARS or parts & trained_on or text_id(sentence) in found:
            continue
        found[text_id(sentence)] = {"id": row["id"], "section": row["section"], "sentence": sentence, "rest": rest}
    return list(found.values())


def _retrieval(_documents: list[Text], halves: list[Text]) -> Tables:
    """Find the rest of a document by its first sentence, or an answer by its query, among all of them."""
    # nDCG@10 says nothing about fewer documents than ranks.
    if len(halves) < 10:
        raise TaskDataError(
            "evaluation.held_out: retrieval needs 10 test documents of two sentences, or 10 test pairs; the corpus has "
            f"{len(halves)}.",
            "Raise `corpus.test` or `max_documents`, add texts, or remove the task.",
        )
    # Ids are hashes of the texts, so equal rests become one document and no query loses its answer.
    ids = [text_id(half["rest"]) for half in halves]
    corpus = dict(zip(ids, (half["rest"] for half in halves), strict=True))
    asked = [text_id(half["sentence"]) for half in halves]
    queries = dict(zip(asked, (half["sentence"] for half in halves), strict=True))
    return {
        "HeldOutRetrieval/queries": pl.DataFrame({"id": list(queries), "text": list(queries.values())}),
        "HeldOutRetrieval/corpus": pl.DataFrame({"id": list(corpus), "text": list(corpus.values())}),
        "HeldOutRetrieval/qrels": pl.DataFrame({"query_id": asked, "doc_id": ids, "score": 1}),
    }


def _classification(documents: list[Text], _halves: list[Text]) -> Tables:
    """Predict the section (package, file, subset) of a document; half of the documents train the classifier."""
    # Both halves are of the corpus' test split: the classifier must not learn from texts that students have seen.
    splits = ["train" if uniform("classifier", row["id"]) < 0.5 else "test" for row in documents]
    counts = Counter((row["section"], split) for row, split in zip(documents, splits, strict=True))
    # With fewer texts than it draws per label, mteb would train on unbalanced labels.
    labels = sorted({s for s, _ in counts if counts[s, "train"] >= TRAINING_EXAMPLES and counts[s, "test"]})
    if len(labels) < 2:
        raise TaskDataError(
            f"evaluation.held_out: classification needs two sections with {TRAINING_EXAMPLES} test documents to learn "
            f"from; the corpus has {len(labels)}.",
            "Add sources, raise `corpus.test`, or remove the task.",
        )
    kept = [(row, split) for row, split in zip(documents, splits, strict=True) if row["section"] in labels]
    table = {
        "text": [row["text"] for row, _ in kept],
        "label": [row["section"] for row, _ in kept],
        "split": [split for _, split in kept],
    }
    return {"HeldOutClassification": pl.DataFrame(table)}


def _pair_classification(_documents: list[Text], halves: list[Text]) -> Tables:
    """Predict whether a first sentence and a rest belong together; wrong rests are of the same section and topic."""
    by_section: dict[str, list[Text]] = {}
    for half in halves:
        by_section.setdefault(half["section"], []).append(half)
    right = {(half["sentence"], half["rest"]) for half in halves}
    pairs = []
    for members in by_section.values():
        if len(members) < 2:
            continue
        # Rotating by one gives each sentence and each rest one correct and one wrong partner: labels are balanced.
        for half, other in zip(members, members[1:] + members[:1], strict=True):
            # Of equal rests, and of queries with several answers, the next one may be right, too.
            if (half["sentence"], other["rest"]) not in right:
                pairs.append((half["sentence"], half["rest"], 1))
                pairs.append((half["sentence"], other["rest"], 0))
    if not pairs:
        raise TaskDataError(
            "evaluation.held_out: pair_classification needs two test documents of two sentences in one section.",
            "Raise `corpus.test` or `max_documents`, add texts, or remove the task.",
        )
    first, second, labels = zip(*pairs, strict=True)
    table = pl.DataFrame({"sentence1": list(first), "sentence2": list(second), "label": list(labels)})
    return {"HeldOutPairClassification": table}


HELD_OUT_TASKS: dict[HeldOutKind, HeldOutTask] = {
    "retrieval": HeldOutTask("HeldOutRetrieval", "Find a held-out text by its first sentence.", _retrieval),
    "classification": HeldOutTask(
        "HeldOutClassification", "Predict which section of the corpus a held-out text is from.", _classification
    ),
    "pair_classification": HeldOutTask(
        "HeldOutPairClassification",
        "Predict whether a first sentence and a rest are from one held-out text.",
        _pair_classification,
    ),
}
"""By kind, in the order in which they are listed."""
