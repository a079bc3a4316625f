"""The active release changes in one step, and can be rolled back."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from stella_assets.core.intact import DamagedArtefactError
from stella_assets.core.runner import Runner
from stella_assets.core.step import Result, Step
from stella_assets.lineage.verify import verify_files
from stella_assets.release.active import ReleaseGoneError, active_folder
from stella_assets.release.promotion import NothingToPromoteError, promote_newest, promote_release, roll_back
from stella_assets.storage.errors import ReleaseError
from stella_assets.storage.releases import Releases
from stella_assets.storage.workspace import Workspace

RELEASE_KEY = "0123456789abcdef"


def artefact(workspace: Workspace, key: str):
    folder = workspace.artefacts / "release" / key
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"key": key}))
    return folder


def test_what_is_promoted_is_active_and_can_be_rolled_back(workspace):
    releases = Releases(workspace, "demo")
    assert releases.active() is None
    for name, key in (("v1", "aaaa"), ("v2", "bbbb"), ("v3", "cccc")):
        releases.promote(artefact(workspace, key), name, {"mean_score": 1.0})
    assert releases.names() == ["v3", "v2", "v1"]
    active = workspace.releases / "demo" / "current"
    assert json.loads((active / "manifest.json").read_text())["key"] == "cccc"
    assert releases.roll_back() == ("v3", "v2")
    assert releases.roll_back() == ("v2", "v1")
    assert json.loads((active / "manifest.json").read_text())["key"] == "aaaa"
    with pytest.raises(ReleaseError, match="'v1' is the first release, so there is nothing to go back to"):
        releases.roll_back()
    releases.promote(workspace.artefacts / "release" / "cccc", "v3", {})
    assert releases.active() == "v3"


def test_a_name_is_given_once(workspace):
    releases = Releases(workspace, "demo")
    releases.promote(artefact(workspace, "aaaa"), "v1", {})
    with pytest.raises(ReleaseError, match="'v1': exists already"):
        releases.promote(artefact(workspace, "bbbb"), "v1", {})
    assert releases.folder("v1").name == "aaaa"


@pytest.mark.parametrize("name", ["current", "../up", "", "a b"])
def test_a_name_that_is_not_valid_is_refused(workspace, name):
    if not name:
        assert (
            Releases(workspace, "demo").promote(artefact(workspace, "aaaabbbb"), name, {})["name"].endswith("-aaaabbbb")
        )
        return
    with pytest.raises(ReleaseError, match="release name"):
        Releases(workspace, "demo").promote(artefact(workspace, "aaaa"), name, {})


def test_files_that_were_deleted_by_hand_are_noticed(workspace):
    import shutil

    releases = Releases(workspace, "demo")
    releases.promote(artefact(workspace, "aaaa"), "v1", {})
    releases.promote(artefact(workspace, "bbbb"), "v2", {})
    shutil.rmtree(workspace.artefacts / "release" / "aaaa")
    with pytest.raises(ReleaseError, match="files of release 'v1' are gone"):
        releases.roll_back()
    assert releases.active() == "v2"
    with pytest.raises(ReleaseError, match="has no release 'v9'; it has v2, v1"):
        releases.folder("v9")


def test_a_release_that_was_deleted_by_hand_is_reported_with_a_remedy(workspace):
    import shutil

    Releases(workspace, "demo").promote(artefact(workspace, "aaaa"), "v1", {})
    shutil.rmtree(workspace.artefacts / "release" / "aaaa")
    with pytest.raises(ReleaseGoneError, match=r"'v1' are gone\. Run `stella release rollback demo`"):
        active_folder("demo", workspace)


def test_a_release_that_became_active_again_can_be_rolled_back(workspace):
    releases = Releases(workspace, "demo")
    first, second = artefact(workspace, "aaaa"), artefact(workspace, "bbbb")
    for folder, name in ((first, "v1"), (second, "v2"), (first, "v1")):
        releases.promote(folder, name, {})
    assert releases.names() == ["v2", "v1"]
    assert releases.roll_back() == ("v1", "v2")
    assert releases.roll_back() == ("v2", "v1")
    releases.promote(first, "v1", {})  # as a run that was killed repeats it
    assert releases.record("v1")["previous"] == "v2"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"name": "v2", "number": 1, "key": "aaaa"}', b"\xff"])
def test_a_damaged_record_is_named(workspace, content):
    releases = Releases(workspace, "demo")
    releases.promote(artefact(workspace, "aaaa"), "v1", {})
    (workspace.releases / "demo" / "v1.json").write_bytes(content)
    with pytest.raises(ReleaseError, match=r"demo/v1\.json: is damaged"):
        releases.folder("v1")


def test_a_damaged_release_is_neither_promoted_nor_active_again(workspace, log):
    def build(context):
        (context.folder / "model.safetensors").write_text("weights")
        return Result(metrics={"mean_score": 1.0, "dimensions": 2, "licence": "MIT"})

    steps = [Step("demo", "release", "1", {"number": number}, build) for number in range(2)]
    made = [Runner(workspace, log).make(step) for step in steps]
    promote_release(made[0], "demo", workspace, "v1")
    victim = made[1].folder / "model.safetensors"
    times = victim.stat()
    victim.write_text("weighty")
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))  # neither size nor time tells
    with pytest.raises(DamagedArtefactError, match=r"model\.safetensors was changed"):
        promote_release(made[1], "demo", workspace, "v2")
    assert Releases(workspace, "demo").names() == ["v1"]
    made[1] = Runner(workspace, log).make(steps[1])  # it is made again
    promote_release(made[1], "demo", workspace, "v2")
    (made[0].folder / "model.safetensors").write_text("weighty")
    with pytest.raises(DamagedArtefactError, match=r"model\.safetensors was changed"):
        roll_back(workspace, "demo")
    assert Releases(workspace, "demo").active() == "v2"
    assert active_folder("demo", workspace) == made[1].folder.resolve()
    victim.write_text("weighty")
    with pytest.raises(ReleaseGoneError, match=r"model\.safetensors was changed.*rollback demo"):
        active_folder("demo", workspace)


def test_a_promotion_that_was_killed_at_its_end_can_be_repeated(workspace, log):
    metrics = {"mean_score": 1.0, "dimensions": 2, "licence": "MIT"}
    release = Step("demo", "release", "1", {}, lambda _context: Result(metrics=metrics))
    gate = Step(
        "demo",
        "release_gate",
        "1",
        {},
        lambda _context: Result(),
        read=lambda _artefact, _workspace: [],
        # As of the real gate, which compares with the active release.
        external_versions=lambda workspace: {"active": str(Releases(workspace, "demo").active())},
    )
    for step in (release, gate):
        Runner(workspace, log).make(step)

    def promote(name: str | None):
        return promote_newest(Runner(workspace, log), release=release, gate=gate, name=name)

    first = promote("v1")
    assert promote("v1") == promote(None) == first
    with pytest.raises(NothingToPromoteError, match="Run `stella run demo` first"):
        promote("v2")


def to_nowhere(link: Path) -> None:
    link.symlink_to("gone")


def to_itself(link: Path) -> None:
    link.symlink_to(link.name)


def a_folder(link: Path) -> None:
    link.mkdir()


def elsewhere(link: Path) -> None:
    """To a copy of the same artefact outside of the workspace."""
    copy = link.parents[3] / "copy" / RELEASE_KEY
    shutil.copytree(link.parents[2] / "artefacts" / "release" / RELEASE_KEY, copy)
    link.symlink_to(copy)


@pytest.mark.parametrize("wrong", [to_nowhere, to_itself, a_folder, elsewhere])
@pytest.mark.parametrize("place", ["current", "v1", "v1.json"])
def test_a_link_or_record_that_leads_elsewhere_is_named_and_never_followed(workspace, place, wrong):
    releases = Releases(workspace, "demo")
    releases.promote(artefact(workspace, RELEASE_KEY), "v1", {"digest": "1" * 32})
    link = workspace.releases / "demo" / place
    link.unlink()
    wrong(link)
    with pytest.raises((ReleaseError, ReleaseGoneError), match=re.escape(f"{link}") if place != "v1" else "gone"):
        active_folder("demo", workspace)
    assert f"releases/demo/{link.stem}" in {each.place for each in verify_files(workspace)}
    if place == "current":
        with pytest.raises(ReleaseError, match="Remove it, then promote a release again"):
            roll_back(workspace, "demo")
        for each in verify_files(workspace):
            if each.mend and each.place.startswith("releases"):
                each.mend()
        releases.promote(workspace.artefacts / "release" / RELEASE_KEY, "v1", {})
        assert releases.active() == "v1"


def test_artefacts_that_changed_places_are_not_used(workspace, log):
    runner = Runner(workspace, log)
    first, second = (runner.make(Step("tiny", f"release{n}", "1", {}, lambda _context: Result())) for n in (1, 2))
    spare = first.folder.with_name("spare")
    for before, after in ((first.folder, spare), (second.folder, first.folder), (spare, second.folder)):
        before.rename(after)
    with pytest.raises(DamagedArtefactError, match=f"{first.folder}: is the artefact release2/{second.folder.name}"):
        promote_release(first, "tiny", workspace, "v1")
    assert len([each for each in verify_files(workspace) if "is the artefact" in each.what]) == 2
    again = Runner(workspace, log)
    assert again.find(Step("tiny", "release1", "1", {}, lambda _context: Result())) is None


def test_a_file_that_is_not_a_part_of_an_artefact_is_named_and_not_read(workspace, log):
    step = Step("tiny", "release", "1", {}, lambda _context: Result())
    made = Runner(workspace, log).make(step)
    (made.folder / ".DS_Store").write_text("of a file manager")
    (made.folder / "__pycache__").mkdir()
    (made.folder / "__pycache__" / "code.pyc").write_text("compiled")
    assert Runner(workspace, log).find(step) is not None
    extra = made.folder / "special_tokens_map.json"  # transformers reads it if it is there
    extra.write_text("{}")
    with pytest.raises(DamagedArtefactError, match=f"{extra} is not a part of it"):
        promote_release(made, "tiny", workspace, "v1")
    assert [each.place for each in verify_files(workspace)] == [f"artefacts/release/{made.folder.name}"]
    assert Runner(workspace, log).find(step) is None
    assert Runner(workspace, log).make(step).digest == made.digest
    assert not extra.exists()
