"""What is let go, and what stays."""

import shutil

from stella_assets.manifest import Identity, Manifest
from stella_assets.redistil.retention import sweep
from stella_assets.trace import Tracer
from stella_assets.training.start import find_start
from storage.artefacts import MANIFEST
from storage.home import Home
from storage.releases import Releases

ABOUT = {"made_at": "2026-01-05T03:00:00+00:00", "seconds": 1.0}


def made(home: Home, asset: str, inputs: dict[str, str], seed: int) -> Manifest:
    """An artefact with one file."""
    manifest = Manifest(Identity(asset, "1", {"seed": seed}, inputs), {"file": "0" * 32}, about=ABOUT)
    folder = home.artefacts / asset / manifest.identity.key
    folder.mkdir(parents=True)
    (folder / "file").write_text("content")
    (folder / MANIFEST).write_text(manifest.to_json())
    return manifest


def released(home: Home, name: str, start: str | None) -> Manifest:
    """A release whose student continued from another one; gives its stage."""
    stage = made(home, "stage_1", {"source:start": start} if start else {}, len(name))
    release = made(home, "release", {"stage_1": stage.digest}, len(name))
    Releases(home, "weekly").promote(home.artefacts / "release" / release.identity.key, name, {"mean_score": 1.0})
    return stage


def folders(home: Home) -> set[str]:
    return {path.parent.name for path in home.artefacts.glob(f"*/*/{MANIFEST}")}


def test_what_a_kept_release_continued_from_stays_without_what_that_rests_on(home: Home):
    first = released(home, "v", None)
    second = released(home, "ve", first.digest)
    third = released(home, "ver", second.digest)
    fourth = released(home, "vers", third.digest)
    would_go = sweep(home, "weekly", 1, 0, dry_run=True)
    assert would_go[:2] == ["release weekly@ve", "release weekly@v"]
    assert sweep(home, "weekly", 1, 0) == would_go
    stages = {stage.identity.key for stage in (second, third, fourth)}  # the second one is what the third began with
    releases = {Releases(home, "weekly").folder(name).name for name in ("ver", "vers")}
    assert folders(home) == stages | releases
    assert find_start(home, first.digest) is None
    assert Tracer(home).find("weekly@ver").all["stage_1"].sources["start"] == second.digest


def test_releases_of_other_recipes_stay_and_one_deleted_by_hand_hinders_nobody(home: Home):
    released(home, "v1", None)
    other = made(home, "release", {"stage_1": made(home, "stage_1", {}, 7).digest}, 7)
    folder = home.artefacts / "release" / other.identity.key
    Releases(home, "other").promote(folder, "v1", {"mean_score": 1.0})
    sweep(home, "weekly", 1, 0)
    assert Releases(home, "other").folder("v1") == folder
    assert Tracer(home).find("other@v1").all["stage_1"].folder
    shutil.rmtree(folder)
    assert len(sweep(home, "weekly", 1, 0)) == 1  # the stage that the deleted one rested on
    assert Releases(home, "weekly").folder("v1").is_dir()


def test_what_was_made_lately_stays(home: Home):
    released(home, "v1", None)
    loose = made(home, "stage_1", {}, 99)
    assert sweep(home, "weekly", 1, unused_days=1e5) == []
    assert loose.identity.key in folders(home)
    sweep(home, "weekly", 1, unused_days=7)
    assert loose.identity.key not in folders(home)
