"""The index of a retriever holds the held-out documents, and says how much it finds."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from stella_assets.core.config import ModelSource
from stella_assets.core.devices import Compute
from stella_assets.core.step import BuildContext, Result, Step
from stella_assets.release.retrievers import index
from stella_assets.release.retrievers.index import TokenIndex, retriever_index_step
from stella_assets.release.retrievers.search import find_by_tokens, rerank
from stella_assets.release.search import Hit
from stella_assets.storage.workspace import Workspace
from stella_assets.students.retriever import SavedRetriever
from stella_assets.training.retrievers import RETRIEVERS
from stella_assets.training.retrievers.base import RetrieverConfig
from tests.models import TEXTS
from tests.release.retrievers.test_publish import fixed, make
from tests.training.retrievers.test_run import LATE

SETTINGS = RETRIEVERS["multi_vector"].model_validate(LATE)
DOCUMENTS = [f"{text} {n}" for n, text in enumerate(TEXTS * 3)]


class Corpus:
    """Documents of two splits, and queries."""

    def __init__(self, queries: int = 6) -> None:
        texts = [*DOCUMENTS, *(f"what is {text}" for text in TEXTS[:queries])]
        self.rows = [
            {"id": f"id {n}", "text": text, "role": "query" if n >= len(DOCUMENTS) else "document"}
            | {"split": "train" if n % 5 == 0 and n < len(DOCUMENTS) else "test"}
            | {"source": "mine", "origin": f"line {n}", "licence": "MIT"}
            for n, text in enumerate(texts)
        ]

    def scan(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        yield from pa.Table.from_pylist(self.rows).select(columns).to_batches(max_chunksize=20)


def index_of(model: Path, corpus: Corpus, settings: RetrieverConfig = SETTINGS) -> Step[TokenIndex]:
    def build(context: BuildContext) -> Result:
        made = SETTINGS.initialise(ModelSource(model=str(model)), None, 0, context.compute)
        made.save(context.folder / "model")
        return Result()

    def read(artefact: Any, _workspace: Workspace) -> SavedRetriever:
        return SavedRetriever(artefact.folder / "model", SETTINGS)

    retriever = Step("tiny", "retriever/late", "1", {}, build=build, read=read)
    return retriever_index_step("tiny", settings=settings, corpus=fixed("corpus", corpus), retriever=retriever)


def test_the_index_holds_the_held_out_documents_and_measures_its_recall(
    published: Callable[[str], Path], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(index, "BATCH", 7)
    corpus = Corpus()
    step = index_of(published("bert"), corpus)
    artefact = make(step, workspace)  # type: ignore[arg-type]
    expected = {row["id"]: row["text"] for row in corpus.rows if (row["role"], row["split"]) == ("document", "test")}
    metrics = artefact.manifest.metrics
    assert metrics["documents"] == len(expected)
    assert (metrics["partitions"], metrics["queries"]) == (1, 6)
    assert 0.5 <= metrics["recall_at_10"] <= 1
    [check] = artefact.manifest.checks
    assert check.passed == (metrics["recall_at_10"] >= 0.9)
    found = step.read(artefact, workspace)
    assert len(found) == len(expected)
    [retriever] = [each for each in step.dependencies if each.name == "retriever/late"]
    loaded = retriever.read(make(retriever, workspace), workspace).load(Compute("cpu"))
    model = loaded.model
    query = model.encode_query(["what is a sum?"])
    scores = model.similarity(query, model.encode_document(list(expected.values())))[0].numpy()
    hits = find_by_tokens("what is a sum?", found, loaded, corpus, 5, exact=True)  # type: ignore[arg-type]
    nearest = found.nearest(query[0].numpy(), 5)
    assert [hit.score for hit in hits] == [score for _, score in nearest]
    assert {hit.id: hit.text for hit in hits} == {name: expected[name] for name, _ in nearest}
    by_name = dict(zip(expected, scores, strict=True))
    np.testing.assert_allclose([score for _, score in nearest], np.sort(scores)[::-1][:5], atol=5e-3)
    np.testing.assert_allclose([by_name[name] for name, _ in nearest], [score for _, score in nearest], atol=5e-3)


def test_an_index_is_the_same_artefact_when_it_is_made_again(
    published: Callable[[str], Path], workspace: Workspace, tmp_path: Path
):
    """Lance names files at random; what is hashed is which documents it holds, and how many vectors each has."""
    step = index_of(published("bert"), Corpus())
    first, second = make(step, workspace), make(step, Workspace(tmp_path / "again"))  # type: ignore[arg-type]
    assert first.digest == second.digest
    assert set(first.manifest.outputs) == {"documents.parquet"}
    assert any(name.startswith("token_vectors/") for name in first.manifest.files)


def test_a_recipe_may_have_all_documents_indexed(published: Callable[[str], Path], workspace: Workspace):
    corpus = Corpus()
    everything = SETTINGS.model_copy(update={"index": "all"})
    step = index_of(published("bert"), corpus, everything)
    artefact = make(step, workspace)  # type: ignore[arg-type]
    documents = {row["id"] for row in corpus.rows if row["role"] == "document"}
    assert artefact.manifest.metrics["documents"] == len(documents)
    query = np.eye(1, SETTINGS.dimension, dtype=np.float32)
    assert {name for name, _ in step.read(artefact, workspace).nearest(query, len(documents))} == documents
    assert artefact.manifest.metrics["queries"] == 6
    # What is searched with a retriever is not part of what it is.
    assert "index" not in SETTINGS.model_dump()
    assert everything.settings("index") == SETTINGS.settings()


def test_without_held_out_documents_there_is_an_empty_index(published: Callable[[str], Path], workspace: Workspace):
    corpus = Corpus(queries=0)
    for row in corpus.rows:
        row["split"] = "train"
    artefact = make(index_of(published("bert"), corpus), workspace)  # type: ignore[arg-type]
    assert artefact.manifest.metrics["documents"] == 0
    assert artefact.manifest.checks[0].passed


def test_a_reranker_puts_what_a_release_found_into_the_order_of_its_scores():
    class ByLength:
        model = None

        def score_pairs(self, queries: list[str], documents: list[str]) -> np.ndarray:
            assert set(queries) == {"which"}
            return np.array([len(text) for text in documents], dtype=np.float32)

    hits = [Hit(0.9 - n / 10, f"id {n}", text, "mine", "", "test", "MIT") for n, text in enumerate(("aa", "a", "aaa"))]
    assert [(hit.text, hit.score) for hit in rerank("which", hits, ByLength(), 2)] == [("aaa", 3), ("aa", 2)]
