"""What is alive, and so is never collected."""

import shutil
from pathlib import Path

import pytest

from stella_assets.core.manifest import Identity, Manifest
from stella_assets.core.runner import Runner
from stella_assets.core.step import Result, Step
from stella_assets.evaluation.tables import SCORES
from stella_assets.lineage.verify import verify_files
from stella_assets.release.alive import linked_artefacts, live_artefacts
from stella_assets.storage.artefacts import MANIFEST, ArtefactStore, finished
from stella_assets.storage.workspace import Workspace


def made(workspace: Workspace, asset: str, inputs: dict[str, str], **settings: object) -> Manifest:
    manifest = Manifest(Identity(asset, "1", settings, inputs), {})
    folder = workspace.artefacts / asset / manifest.identity.key
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(manifest.to_json())
    return manifest


def link(workspace: Workspace, name: str, manifest: Manifest) -> None:
    ArtefactStore(workspace).point("demo", name, manifest.identity.asset, manifest.identity.key)


def folder(workspace: Workspace, manifest: Manifest) -> Path:
    return workspace.artefacts / manifest.identity.asset / manifest.identity.key


def test_what_a_recipe_links_to_is_alive_with_all_that_it_depends_on(workspace: Workspace):
    corpus = made(workspace, "corpus", {})
    stage = made(workspace, "stage_1", {"corpus": corpus.digest}, seed=1)
    other = made(workspace, "stage_1", {"corpus": corpus.digest}, seed=2)
    link(workspace, "seed_1/stage_1", stage)
    assert live_artefacts(workspace) == {folder(workspace, corpus), folder(workspace, stage)}
    assert folder(workspace, other) in finished(workspace)


def test_a_workspace_that_is_reached_through_a_link_has_the_same_live_artefacts(workspace: Workspace, tmp_path: Path):
    corpus = made(workspace, "corpus", {})
    link(workspace, "corpus", corpus)
    (tmp_path / "link").symlink_to(workspace.root, target_is_directory=True)
    linked = Workspace(tmp_path / "link")
    assert linked_artefacts(linked) == set(finished(linked)) == live_artefacts(linked)


def test_a_release_is_alive_until_it_is_about_to_be_removed(workspace: Workspace):
    stage = made(workspace, "stage_1", {})
    release = made(workspace, "release", {"stage_1": stage.digest})
    assert live_artefacts(workspace) == set(finished(workspace))
    assert live_artefacts(workspace, without=[folder(workspace, release)]) == set()


@pytest.mark.parametrize("family", ["task_scores", "ranking_scores"])
def test_scores_of_tasks_are_alive_with_the_scores_of_their_model(workspace: Workspace, family: str):
    scores = made(workspace, "scores/stage_1", {})
    row = dict.fromkeys(SCORES.schema.names) | {"weights": "w1"}
    SCORES.write(folder(workspace, scores), [row])
    link(workspace, "scores/stage_1", scores)
    parts = [made(workspace, f"{family}/STS", {}, loader={"weights": weights}) for weights in ("w1", "w2")]
    assert live_artefacts(workspace) == {folder(workspace, scores), folder(workspace, parts[0])}


def test_a_workspace_that_was_copied_through_its_links_keeps_its_artefacts(workspace: Workspace, tmp_path: Path, log):
    step = Step("demo", "scores/base", "1", {}, lambda _context: Result())
    made_once = Runner(workspace, log).make(step)
    shutil.copytree(workspace.root, tmp_path / "copy")  # as `scp -r` and `cp -rL` do
    copy = Workspace(tmp_path / "copy")
    assert live_artefacts(copy) == set(finished(copy)) != set()
    [found] = verify_files(copy)
    assert (found.place, "a copy of an artefact" in found.what) == ("demo/scores/base", True)
    runner = Runner(copy, log)
    assert not runner.is_linked(step)
    runner.link(step)
    assert runner.is_linked(step)
    assert list(verify_files(copy)) == []
    assert runner.find(step).digest == made_once.digest


@pytest.mark.parametrize("target", ["base", "../../../elsewhere", "gone"])
def test_a_link_of_a_recipe_that_leads_elsewhere_is_named_and_made_again(
    workspace: Workspace, tmp_path: Path, log, target: str
):
    step = Step("demo", "scores/base", "1", {}, lambda _context: Result())
    made_once = Runner(workspace, log).make(step)
    shutil.copytree(made_once.folder, workspace.root.parent / "elsewhere")
    link = workspace.current("demo", "scores/base")
    link.unlink()
    link.symlink_to(target)
    assert [found.place for found in verify_files(workspace)] == ["demo/scores/base"]
    assert linked_artefacts(workspace) == set()
    assert not Runner(workspace, log).is_linked(step)
    Runner(workspace, log).make(step)
    assert list(verify_files(workspace)) == []
