"""What happened to a text, and which shards are needed."""

import logging
from pathlib import Path

import pytest

from stella_assets.core.runner import NotMaterialisedError, Runner
from stella_assets.corpus.account import explain
from stella_assets.corpus.shards import CleanedTexts, live_shards
from stella_assets.storage.shards import free_shards
from stella_assets.storage.workspace import Workspace
from tests.corpus.conftest import build, corpus_steps, different, rows_of


def test_every_text_of_a_source_is_explained(tmp_path: Path, corpus_with, workspace: Workspace):
    texts = [different(i) for i in range(30)]
    (tmp_path / "lines.txt").write_text("\n".join([*texts, "short", texts[0].upper() + "!"]), encoding="utf-8")
    corpus = corpus_with({"dev": 0.2, "test": 0.2}, kind="text", path="./lines.txt", unit="line")
    runner = Runner(workspace, logging.getLogger("test"))
    steps = corpus_steps(corpus)
    about = {"runner": runner, "clean": corpus.clean, "cleaned": steps[0], "corpus": steps[-1]}
    with pytest.raises(NotMaterialisedError, match="--select corpus"):
        explain(texts[0], **about)
    for step in steps:
        runner.make(step)
    found = explain(texts[0], **about)
    assert sorted(trace.what.split(",")[0] for trace in found) == ["dropped by duplicates: duplicate", "in the corpus"]
    (kept,) = [trace for trace in found if trace.what.startswith("in the corpus")]
    assert [trace for trace in explain(kept.id[:16], **about) if trace.what == kept.what] == [kept]
    (short,) = explain("short", **about)
    assert (short.what, short.value, short.origin) == ("dropped by cleaned_texts: too short", 5, "lines.txt:31")
    assert explain("a text that no source has", **about) == []


def test_shards_of_live_artefacts_are_kept(tmp_path: Path, corpus_with, workspace: Workspace):
    made = []
    for count in (30, 40):
        (tmp_path / "lines.txt").write_text("\n".join(different(i) for i in range(count)))
        corpus = corpus_with({"dev": 0.2, "test": 0.2}, kind="text", path="./lines.txt", unit="line")
        made.append(build(corpus, workspace))
    alive = [artefact.folder for artefact in made[1].values()]
    assert free_shards(workspace, lambda: live_shards(alive), dry_run=False)
    assert CleanedTexts.open(made[1]["cleaned_texts"], workspace).are_stored()
    assert not CleanedTexts.open(made[0]["cleaned_texts"], workspace).are_stored()
    assert free_shards(workspace, lambda: live_shards(alive), dry_run=False) == []
    assert build(corpus, workspace)["corpus"].digest == made[1]["corpus"].digest
    assert len(rows_of(made[1])) == 40
