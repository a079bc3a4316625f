"""What retention removes, and what it keeps."""

import shutil

from stella_assets.core.manifest import Identity, Manifest
from stella_assets.core.trace import Tracer
from stella_assets.redistil.retention import collect_garbage
from stella_assets.storage.artefacts import MANIFEST
from stella_assets.storage.releases import Releases
from stella_assets.storage.workspace import Workspace

ABOUT = {"made_at": "2026-01-05T03:00:00+00:00", "seconds": 1.0}


def made(workspace: Workspace, asset: str, inputs: dict[str, str], seed: int) -> Manifest:
    """An artefact with one file."""
    manifest = Manifest(Identity(asset, "1", {"seed": seed}, inputs), {"file": "0" * 32}, run_info=ABOUT)
    folder = workspace.artefacts / asset / manifest.identity.key
    folder.mkdir(parents=True)
    (folder / "file").write_text("content")
    (folder / MANIFEST).write_text(manifest.to_json())
    return manifest


def released(workspace: Workspace, name: str, start: str | None) -> Manifest:
    """A release whose student continued from another one; gives its stage."""
    stage = made(workspace, "stage_1", {"source:start": start} if start else {}, len(name))
    release = made(workspace, "release", {"stage_1": stage.digest}, len(name))
    Releases(workspace, "weekly").promote(
        workspace.artefacts / "release" / release.identity.key, name, {"mean_score": 1.0}
    )
    return stage


def folders(workspace: Workspace) -> set[str]:
    return {path.parent.name for path in workspace.artefacts.glob(f"*/*/{MANIFEST}")}


def test_the_stage_that_a_kept_release_continued_from_is_kept_without_its_inputs(workspace: Workspace):
    first = released(workspace, "v", None)
    second = released(workspace, "ve", first.digest)
    third = released(workspace, "ver", second.digest)
    fourth = released(workspace, "vers", third.digest)
    would_go = collect_garbage(workspace, "weekly", 1, 0, dry_run=True)
    assert would_go[:2] == ["release weekly@ve", "release weekly@v"]
    assert collect_garbage(workspace, "weekly", 1, 0) == would_go
    stages = {stage.identity.key for stage in (second, third, fourth)}  # the second one is what the third began with
    releases = {Releases(workspace, "weekly").folder(name).name for name in ("ver", "vers")}
    assert folders(workspace) == stages | releases
    assert Tracer(workspace).folder_of(first.digest) is None
    assert Tracer(workspace).find("weekly@ver").all["stage_1"].sources["start"] == second.digest


def test_releases_of_other_recipes_are_kept_and_one_deleted_by_hand_is_skipped(workspace: Workspace):
    released(workspace, "v1", None)
    other = made(workspace, "release", {"stage_1": made(workspace, "stage_1", {}, 7).digest}, 7)
    folder = workspace.artefacts / "release" / other.identity.key
    Releases(workspace, "other").promote(folder, "v1", {"mean_score": 1.0})
    collect_garbage(workspace, "weekly", 1, 0)
    assert Releases(workspace, "other").folder("v1") == folder
    assert Tracer(workspace).find("other@v1").all["stage_1"].folder
    shutil.rmtree(folder)
    assert len(collect_garbage(workspace, "weekly", 1, 0)) == 1  # the stage that the deleted one was made of
    assert Releases(workspace, "weekly").folder("v1").is_dir()


def test_recent_artefacts_are_kept(workspace: Workspace):
    released(workspace, "v1", None)
    loose = made(workspace, "stage_1", {}, 99)
    assert collect_garbage(workspace, "weekly", 1, retention_days=1e5) == []
    assert loose.identity.key in folders(workspace)
    collect_garbage(workspace, "weekly", 1, retention_days=7)
    assert loose.identity.key not in folders(workspace)
