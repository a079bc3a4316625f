"""The steps `retriever_index/<name>`: token vectors of documents, searched by MaxSim and by an index."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stella_assets.core.manifest import Check
from stella_assets.core.present import Rows, Shown
from stella_assets.core.progress import progress_bar
from stella_assets.core.step import Artefact, BuildContext, CheckSpec, Presentation, Result, Step, from_folder
from stella_assets.corpus.read import CorpusTexts
from stella_assets.evaluation.ranking.steps import retriever_model
from stella_assets.storage.multi_vectors import Found, MultiVectorTable
from stella_assets.storage.tables import INT, TEXT, write_table
from stella_assets.students.retriever import SavedRetriever
from stella_assets.training.retrievers.base import RetrieverConfig

CODE_VERSION = "1"
FAMILY = "retriever_index"
ASKED = "test"
"""The split whose queries say how much an index finds."""
TABLE_FOLDER, DOCUMENTS_FILE = "token_vectors", "documents.parquet"
DOCUMENTS = pa.schema({"id": TEXT, "vectors": INT})
BATCH = 256
"""Documents whose vectors are in memory at once."""
TOP, QUERIES = 10, 200
"""Documents of a query that recall is about, and how many queries it is the mean of, at most."""
LEAST_RECALL = 0.9
RECALL = CheckSpec(
    "index_finds_the_nearest",
    f"Of the {TOP} documents with the largest MaxSim, the index finds at least {LEAST_RECALL:.0%}, on average.",
)


@dataclass(frozen=True)
class TokenIndex:
    """The token vectors of documents.

    Attributes:
        folder: Of the artefact.
    """

    folder: Path

    def nearest(self, query_QD: np.ndarray, top: int, *, exact: bool = True) -> Found:
        """Ids of the documents with the largest MaxSim, and their MaxSim; see `MultiVectorTable.nearest`."""
        return MultiVectorTable(self.folder / TABLE_FOLDER).nearest(query_QD, top, exact=exact)

    def __len__(self) -> int:
        return int(pq.read_metadata(self.folder / DOCUMENTS_FILE).num_rows)


def retriever_index_step(
    recipe: str, *, settings: RetrieverConfig, corpus: Step[CorpusTexts], retriever: Step[SavedRetriever]
) -> Step[TokenIndex]:
    """The step that makes `retriever_index/<name>`.

    Args:
        recipe: Name of the recipe.
        settings: Of the retriever, which has vectors to search with.
        corpus: Whose documents are searched, with its held-out queries.
        retriever: That computes the vectors.
    """
    return Step(
        recipe=recipe,
        name=f"{FAMILY}/{settings.name}",
        code_version=CODE_VERSION,
        settings={"split": settings.indexed_split},
        dependencies=(corpus, retriever),
        build=partial(_build, settings, corpus, retriever),
        read=from_folder(TokenIndex),
        presentation=Presentation(
            group="release",
            kinds=frozenset({"lancedb"}),
            description=f"Token vectors of {'held-out' if settings.indexed_split else 'all'} documents by "
            f"`{retriever_model(settings.name)}`, in a LanceDB table with an IVF_PQ index, and how much that finds.",
            checks=(RECALL,),
            show=_show,
        ),
    )


def _show(artefact: Artefact) -> Mapping[str, Shown]:
    return {"index": Rows([dict(artefact.manifest.metrics)])}


def _build(
    settings: RetrieverConfig, corpus: Step[CorpusTexts], retriever: Step[SavedRetriever], context: BuildContext
) -> Result:
    texts, model = context.read(corpus), context.read(retriever).load(context.compute).model
    dim, written = settings.dimension, list[dict[str, Any]]()
    encoded = _encoded(texts, settings.indexed_split, model.encode_document, written)
    table = MultiVectorTable.write(context.folder / TABLE_FOLDER, dim, encoded)
    vectors = sum(row["vectors"] for row in written)
    write_table(context.folder / DOCUMENTS_FILE, DOCUMENTS, written)
    partitions = table.build_index(vectors, dim)
    metrics: dict[str, Any] = {
        "documents": len(written),
        "token_vectors": vectors,
        "megabytes": round(vectors * dim * 2 / 1e6, 1),
        "partitions": partitions,
    }
    if partitions:
        metrics |= _measure(table, texts, model.encode_query)
    files = [file for file in (context.folder / TABLE_FOLDER).rglob("*") if file.is_file()]
    recall = metrics.get(f"recall_at_{TOP}")
    return Result(
        metrics=metrics,
        checks=(
            Check(
                RECALL.name,
                recall is None or recall >= LEAST_RECALL,
                "there is no index, or no query" if recall is None else f"recall {recall:.3f}",
                {} if recall is None else {"recall": recall},
            ),
        ),
        # Lance names its files at random.
        unhashed_files=tuple(sorted(file.relative_to(context.folder).as_posix() for file in files)),
    )


def _encoded(
    texts: CorpusTexts, split: str | None, encode: Callable[..., Any], written: list[dict[str, Any]]
) -> Iterator[tuple[list[str], list[np.ndarray]]]:
    """Ids and vectors of documents in batches; `written` is told how many vectors each has."""
    with progress_bar(sum(len(batch) for batch in _chosen(texts, "document", split)), FAMILY, "documents") as bar:
        for batch in _chosen(texts, "document", split):
            for start in range(0, len(batch), BATCH):
                rows = batch.slice(start, BATCH).to_pydict()
                vectors = encode(rows["text"], convert_to_numpy=True, show_progress_bar=False)
                written += [{"id": name, "vectors": len(v)} for name, v in zip(rows["id"], vectors, strict=True)]
                bar.update(len(vectors))
                yield rows["id"], vectors


def _measure(table: MultiVectorTable, texts: CorpusTexts, encode: Callable[..., Any]) -> dict[str, Any]:
    """How much of what exact search finds the index finds, and how long both take."""
    queries: list[str] = []
    for batch in _chosen(texts, "query", ASKED):
        queries += batch.column("text").to_pylist()[: QUERIES - len(queries)]
    if not queries:
        return {}
    asked = encode(queries, convert_to_numpy=True, show_progress_bar=False)
    exact = table.nearest_of_many(asked, TOP)
    began = time.perf_counter()
    found = [table.nearest(vectors, TOP, exact=False) for vectors in asked]
    by_index = time.perf_counter()
    table.nearest(asked[0], TOP)
    exactly = time.perf_counter()
    shares = [
        len({name for name, _ in right} & {name for name, _ in given}) / len(right)
        for right, given in zip(exact, found, strict=True)
    ]
    return {
        f"recall_at_{TOP}": round(float(np.mean(shares)), 4),
        "queries": len(asked),
        "milliseconds_exact": round(1000 * (exactly - by_index), 2),
        "milliseconds_index": round(1000 * (by_index - began) / len(asked), 2),
    }


def _chosen(texts: CorpusTexts, role: str, split: str | None) -> Iterator[pa.RecordBatch]:
    import pyarrow.compute as pc  # here, as quick commands import this module

    for batch in texts.scan(["id", "text", "role", "split"]):
        chosen = pc.equal(batch.column("role"), role)
        if split is not None:
            chosen = pc.and_(chosen, pc.equal(batch.column("split"), split))
        if len(rows := batch.filter(chosen)):
            yield rows
