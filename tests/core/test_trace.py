"""Lineage: found by words or digest, with a label of its own for each artefact."""

from pathlib import Path

import pytest

from stella_assets.core.manifest import Identity, Manifest
from stella_assets.core.trace import Node, TraceError, Tracer
from stella_assets.storage.artefacts import MANIFEST
from stella_assets.storage.workspace import Workspace


def made(workspace: Workspace, asset: str, inputs: dict[str, Manifest], seed: int = 0) -> Manifest:
    """An artefact without files, made of others."""
    digests = {name: manifest.digest for name, manifest in inputs.items()}
    manifest = Manifest(Identity(asset, "1", {"seed": seed}, digests), {}, run_info={"seconds": 1.0})
    folder = workspace.artefacts / asset / manifest.identity.key
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(manifest.to_json())
    return manifest


def folder(workspace: Workspace, manifest: Manifest) -> Path:
    return workspace.artefacts / manifest.identity.asset / manifest.identity.key


@pytest.fixture
def report(workspace: Workspace) -> Node:
    """The lineage of a report on two seeds, whose stages and scores share families."""
    corpus = made(workspace, "corpus", {})
    stages = [made(workspace, "stage_1", {"corpus": corpus}, seed) for seed in (0, 1)]
    scores = [made(workspace, "scores/stage_1", {"stage_1": stage}, seed) for seed, stage in enumerate(stages)]
    inputs = {"corpus": corpus, "scores/seed_1": scores[1], "scores/stage_1": scores[0], "stage_1": stages[0]}
    return Tracer(workspace).of_folder(folder(workspace, made(workspace, "evaluation_report", inputs)))


def test_artefacts_of_one_family_have_labels_of_their_own(report: Node):
    assert set(report.all) == {
        "corpus",
        "stage_1",
        "scores/stage_1",
        "scores/seed_1",
        "scores/seed_1: stage_1",
        "evaluation_report",
    }
    own, other = report.all["stage_1"], report.all["scores/seed_1: stage_1"]
    assert own.manifest is not None
    assert other.manifest is not None
    assert (own.manifest.identity.settings["seed"], other.manifest.identity.settings["seed"]) == (0, 1)
    assert report.identities()["scores/seed_1: stage_1"]["digest"] == other.digest
    assert ("scores/seed_1: stage_1", "scores/seed_1") in report.edges
    assert list(report.all)[-1] == "evaluation_report"
    assert report.seconds == 6


def test_the_lineage_of_what_is_being_made_has_all_its_inputs(report: Node, workspace: Workspace):
    folders = [node.folder for name in ("scores/stage_1", "scores/seed_1") if (node := report.all[name]).folder]
    joined = Tracer(workspace).join(folders)
    assert len(joined.identities()) == 5


def test_an_artefact_is_found_by_its_digest_whatever_it_is_called(report: Node, workspace: Workspace):
    other, tracer = report.all["scores/seed_1"], Tracer(workspace)
    assert tracer.folder_of(other.digest) == other.folder
    assert tracer.folder_of(other.digest, "scores/seed_1") == other.folder
    assert tracer.folder_of("0" * 32) is None
    assert tracer.of_digest("corpus", "0" * 32).manifest is None


def test_a_damaged_manifest_does_not_hide_other_artefacts(report: Node, workspace: Workspace):
    corpus = report.all["corpus"]
    damaged = workspace.artefacts / "corpus" / "0123456789abcdef"
    damaged.mkdir()
    (damaged / MANIFEST).write_text("")
    assert Tracer(workspace).folder_of(corpus.digest, "corpus") == corpus.folder


def test_words_name_one_artefact_or_the_mistake_is_reported(report: Node, workspace: Workspace):
    tracer, corpus = Tracer(workspace), report.all["corpus"]
    assert tracer.find(corpus.digest[:10]).digest == corpus.digest
    assert corpus.folder is not None
    tagged = {"0123456789abcdef": corpus.folder}
    assert tracer.find("demo@0123", tagged=lambda _recipe: tagged).digest == corpus.digest
    both = {"0123456789": corpus.folder, "0123ffffff": corpus.folder}
    with pytest.raises(TraceError, match=r"demo@0123: 2 snapshots begin with this: 0123456789, 0123ffffff\. Give more"):
        tracer.find("demo@0123", tagged=lambda _recipe: both)
    with pytest.raises(
        TraceError, match=r"demo@v1: no release or snapshot of this name\. Recipe 'demo' has 0123456789"
    ):
        tracer.find("demo@v1", tagged=lambda _recipe: tagged)
    with pytest.raises(TraceError, match="nothing: there is no such artefact"):
        tracer.find("nothing")
