"""Data sets of the hub, which is asked as little as possible."""

import logging
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stella_assets.core.runner import Runner
from stella_assets.corpus.errors import SourceError
from stella_assets.storage.workspace import Workspace
from tests.corpus.conftest import corpus_steps, different, settings_of
from tests.corpus.sources.conftest import texts_of


def test_a_hub_data_set_is_streamed_up_to_its_limit_and_its_column_is_checked(tmp_path: Path, corpus_with):
    pq.write_table(pa.table({"body": [different(i) for i in range(20)]}), tmp_path / "train.parquet")
    hub = {"kind": "huggingface", "dataset": str(tmp_path), "revision": "0" * 40, "limit": 7}
    corpus = corpus_with(**hub, columns={"text": "body"})
    assert [item.text for item in texts_of(corpus.sources[0])] == [different(i) for i in range(7)]
    corpus = corpus_with(**hub, columns={"text": "txt"})
    with pytest.raises(SourceError, match="no column 'txt'; it has body"):
        texts_of(corpus.sources[0])


def test_a_moving_revision_that_the_hub_cannot_resolve_asks_for_a_commit(corpus_with, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    corpus = corpus_with(kind="huggingface", dataset="org/texts", revision="main", limit=7)
    with pytest.raises(SourceError, match=r"which commit revision 'main' is .* 40 hexadecimal digits"):
        corpus.sources[0].content_digest()


def test_the_hub_is_asked_once_for_each_source_however_often_a_run_looks(
    tmp_path: Path, raw: dict[str, Any], workspace: Workspace, monkeypatch
):
    asked: Counter[tuple[str, str]] = Counter()

    class CountingHub:
        def dataset_info(self, dataset: str, revision: str) -> SimpleNamespace:
            asked[dataset, revision] += 1
            return SimpleNamespace(sha="a" * 40)

    monkeypatch.setattr("huggingface_hub.HfApi", CountingHub)
    hub = {"kind": "huggingface", "licence": "MIT", "revision": "main", "limit": 7}
    raw["corpus"]["sources"] = [{"name": name, "dataset": f"org/{name}", **hub} for name in ("texts", "questions")]
    corpus = settings_of(raw["corpus"], tmp_path)
    for _ in range(2):  # e.g. a plan, then a status, in one process
        runner = Runner(workspace, logging.getLogger("test"))
        for step in corpus_steps(corpus):
            assert runner.find(step) is None
            runner.known_identity(step)
    assert corpus.sources[0].pinned().settings()["revision"] == "a" * 40
    assert asked == {("org/texts", "main"): 1, ("org/questions", "main"): 1}


def test_a_commit_needs_no_hub(corpus_with, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", None)
    (source,) = corpus_with(kind="huggingface", dataset="org/texts", revision="b" * 40, limit=7).sources
    assert source.pinned().settings()["revision"] == "b" * 40
