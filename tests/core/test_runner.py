"""Artefacts are reused by content, committed atomically, and never taken from another recipe's state."""

import gc
import logging
import os
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stella_assets.core.errors import UserError
from stella_assets.core.intact import DamagedArtefactError, open_intact
from stella_assets.core.manifest import Check, Manifest
from stella_assets.core.runner import NotMaterialisedError, Runner
from stella_assets.core.step import BuildContext, Result, Step, upstream
from stella_assets.storage.workspace import Workspace


def write_number(number: int, calls: list[str]) -> Callable[[BuildContext], Result]:
    def build(context: BuildContext) -> Result:
        calls.append("built")
        (context.folder / "number.txt").write_text(str(number))
        (context.folder / "clock.txt").write_text("differs from run to run")
        return Result(metrics={"number": number}, checks=(Check("ok", True, "fine"),), unhashed_files=("clock.txt",))

    return build


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def first(calls: list[str]) -> Step:
    return Step("tiny", "first", "1", {"number": 1}, write_number(1, calls))


def test_an_artefact_that_exists_is_reused(first: Step, calls: list[str], workspace: Workspace, log: logging.Logger):
    made = Runner(workspace, log).make(first)
    again = Runner(workspace, log).make(first)
    assert (made.reused, again.reused, calls) == (False, True, ["built"])
    assert made.digest == again.digest
    assert (workspace.current("tiny", "first") / "number.txt").read_text() == "1"


def test_other_settings_code_or_external_versions_make_another_artefact(
    first: Step, calls: list[str], workspace: Workspace, log: logging.Logger
):
    variants = [
        first,
        replace(first, settings={"number": 2}),
        replace(first, code_version="2"),
        replace(first, external_versions=lambda _workspace: {"file": "abc"}),
    ]
    keys = {Runner(workspace, log).make(step).manifest.identity.key for step in variants}
    assert (len(keys), len(calls)) == (4, 4)


def test_a_step_takes_exactly_the_input_its_recipe_names(
    first: Step, calls: list[str], workspace: Workspace, log: logging.Logger
):
    second = Step("tiny", "second", "1", {}, write_number(2, calls), dependencies=(first,))
    with pytest.raises(NotMaterialisedError, match="needs first, which was not made for this recipe"):
        Runner(workspace, log).make(second)
    Runner(workspace, log).make(first)
    before = Runner(workspace, log).make(second)
    changed = replace(first, settings={"number": 9}, build=write_number(9, calls))
    Runner(workspace, log).make(changed)  # now the newest `first`, but not the one that `second` names
    assert Runner(workspace, log).make(second).digest == before.digest
    after = Runner(workspace, log).make(replace(second, dependencies=(changed,)))
    assert after.digest != before.digest


def test_a_build_that_fails_leaves_nothing_that_counts(first: Step, workspace: Workspace, log: logging.Logger):
    def fail(context: BuildContext) -> Result:
        (context.folder / "half.txt").write_text("half")
        raise UserError("broken.", "Mend it.")

    with pytest.raises(UserError, match=r"broken\. Mend it\."):
        Runner(workspace, log).make(replace(first, build=fail))
    assert Runner(workspace, log).find(first) is None
    artefact = Runner(workspace, log).make(first)
    assert sorted(artefact.manifest.outputs) == ["number.txt"]


FILES = ("number.txt", "clock.txt", "manifest.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [None, 0, -2])
def test_what_is_missing_or_cut_short_is_named_and_made_again(
    first: Step, calls: list[str], workspace: Workspace, caplog: pytest.LogCaptureFixture, name: str, keep: int | None
):
    log = logging.getLogger("test")
    artefact = Runner(workspace, log).make(first)
    victim = artefact.folder / name
    content = victim.read_bytes()
    if keep is None:
        victim.unlink()
    else:
        victim.write_bytes(content[:keep])
    assert Runner(workspace, log).find(first) is None
    # Without a manifest there is no artefact, so there is nothing to name.
    assert (str(victim) in caplog.text) == ((name, keep) != ("manifest.json", None))
    assert Runner(workspace, log).make(first).digest == artefact.digest
    assert len(calls) == 2
    assert Runner(workspace, log).make(first).reused


@pytest.mark.parametrize("name", FILES)
def test_every_bit_of_an_artefact_counts(
    first: Step, calls: list[str], workspace: Workspace, log: logging.Logger, name: str
):
    """A flipped bit is found, or changes nothing that is read: white space and an escaped letter in a manifest."""
    artefact = Runner(workspace, log).make(first)
    victim = artefact.folder / name
    content = victim.read_bytes()
    for place in range(0, 8 * len(content), 7):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        victim.write_bytes(flipped)
        found = Runner(workspace, log).find(first)
        assert found is None or (name == "manifest.json" and found.manifest == artefact.manifest), (place, flipped)
    victim.write_bytes(content)
    assert Runner(workspace, log).make(first).reused
    assert calls == ["built"]


def test_an_unchanged_file_is_read_once(
    first: Step, workspace: Workspace, log: logging.Logger, monkeypatch: pytest.MonkeyPatch
):
    from stella_assets.storage import checked

    read: list[str] = []
    digest = checked.file_digest
    monkeypatch.setattr(checked, "file_digest", lambda path: read.append(path.name) or digest(path))
    folder = Runner(workspace, log).make(first).folder
    assert Runner(workspace, log).make(first).reused
    assert read == []  # the digests were computed when it was made
    (folder / "number.txt").touch()
    for _ in range(2):
        assert Runner(workspace, log).make(first).reused
    assert read == ["number.txt"]
    memory = next(workspace.checked.rglob("*.json"))
    content = memory.read_bytes()
    for place in range(0, 8 * len(content), 5):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        memory.write_bytes(flipped)
        assert Runner(workspace, log).find(first)  # damage to the memory costs reading, and nothing else
    memory.write_bytes(content)
    read[:] = ["number.txt"]
    shutil.rmtree(workspace.checked)
    assert Runner(workspace, log).make(first).reused
    assert sorted(read) == ["clock.txt", "number.txt", "number.txt"]


def test_a_thorough_check_reads_files_that_seem_unchanged(first: Step, workspace: Workspace, log: logging.Logger):
    folder = Runner(workspace, log).make(first).folder
    victim = folder / "number.txt"
    before = victim.stat()
    with victim.open("r+b") as file:  # as a failing disk does it: neither size nor time nor inode tells
        file.write(b"9")
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert open_intact(workspace, folder).digest  # this is what the shortcut costs
    with pytest.raises(DamagedArtefactError, match=r"number\.txt was changed: its digest is .* was written"):
        open_intact(workspace, folder, thorough=True)
    assert Runner(workspace, log).find(first) is None  # from now on it is known


def test_the_digest_covers_outputs_and_not_times_or_unhashed_files(
    first: Step, workspace: Workspace, log: logging.Logger, tmp_path: Path
):
    def other_clock(context: BuildContext) -> Result:
        (context.folder / "number.txt").write_text("1")
        (context.folder / "clock.txt").write_text("another time")
        return Result(unhashed_files=("clock.txt",))

    a = Runner(workspace, log).make(first)
    b = Runner(Workspace(tmp_path / "elsewhere"), log).make(replace(first, build=other_clock))
    assert a.digest == b.digest
    assert a.manifest.run_info["seconds"] >= 0
    assert Manifest.read(a.folder / "manifest.json") == a.manifest


def test_a_manifest_of_an_older_version_is_read(first: Step, workspace: Workspace, log: logging.Logger):
    artefact = Runner(workspace, log).make(first)
    path = artefact.folder / "manifest.json"
    text = path.read_text()
    for old, new in {"facts": "metrics", "about": "run_info", "views": "unhashed_files"}.items():
        text = text.replace(f'"{new}"', f'"{old}"')
    path.write_text(text)
    assert Runner(workspace, log).make(first).reused
    assert Manifest.read(path) == artefact.manifest


def test_external_versions_are_asked_for_once_found_or_not(first: Step, workspace: Workspace, log: logging.Logger):
    asked: list[str] = []

    def versions(_workspace: Workspace) -> dict[str, str]:
        asked.append("hub")
        return {"model": "abc"}

    source = replace(first, external_versions=versions)
    readers = [Step("tiny", f"reader_{i}", "1", {}, write_number(i, []), dependencies=(source,)) for i in range(5)]
    runner = Runner(workspace, log)
    for step in readers * 3:
        assert runner.find(step) is None
    assert asked == ["hub"]
    runner.make(source)
    assert runner.make(readers[0]).manifest.identity.inputs["first"] == runner.require(source).digest
    assert asked == ["hub"]


def test_steps_of_one_family_share_an_artefact_and_have_links_of_their_own(
    first: Step, calls: list[str], workspace: Workspace, log: logging.Logger
):
    derived = replace(first, name="seed_1/first", family="first")
    runner = Runner(workspace, log)
    assert runner.make(first).folder == runner.make(derived).folder
    assert calls == ["built"]
    assert workspace.current("tiny", "seed_1/first").resolve() == workspace.current("tiny", "first").resolve()


def test_a_part_is_made_by_the_same_runner_and_is_not_linked(first: Step, workspace: Workspace, log: logging.Logger):
    def whole(context: BuildContext) -> Result:
        part = context.make_part(first)
        (context.folder / "copy.txt").write_text((part.folder / "number.txt").read_text())
        return Result()

    runner = Runner(workspace, log)
    runner.make(Step("tiny", "whole", "1", {}, whole))
    assert [step.name for step, _ in runner.made] == ["first", "whole"]
    assert not workspace.current("tiny", "first").exists()


def test_what_a_part_was_built_with_is_freed(workspace: Workspace, log: logging.Logger):
    class Model:
        pass

    models: list[weakref.ref[Model]] = []

    def whole(context: BuildContext) -> Result:
        model = Model()

        def part(_context: BuildContext) -> Result:
            models.append(weakref.ref(model))
            return Result()

        context.make_part(Step("tiny", "part", "1", {}, part, external_versions=lambda _workspace: {"a": "b"}))
        return Result()

    runner = Runner(workspace, log)
    runner.make(Step("tiny", "whole", "1", {}, whole))
    gc.collect()
    assert [model() for model in models] == [None]
    assert [step.name for step, _ in runner.made] == ["part", "whole"]


def test_each_step_is_listed_once_inputs_first(first: Step):
    left = Step("tiny", "left", "1", {}, first.build, dependencies=(first,))
    gate = Step("tiny", "gate", "1", {}, first.build)
    last = Step("tiny", "last", "1", {}, first.build, dependencies=(left, first), order_after=(gate,))
    assert upstream(last) == [first, left, gate, last]
    assert upstream(last, order=False) == [first, left, last]


def test_links_to_assets_that_a_recipe_no_longer_has_are_removed(
    first: Step, calls: list[str], workspace: Workspace, log: logging.Logger
):
    runner = Runner(workspace, log)
    gone = replace(first, name="teachers/gone")
    last = Step("tiny", "last", "1", {}, write_number(2, calls), dependencies=(first,))
    for step in (first, gone, last, replace(gone, recipe="other")):
        runner.make(step)
    runner.prune_links("tiny", upstream(last))
    assert not workspace.current("tiny", "teachers/gone").exists()
    for recipe, name in (("tiny", "first"), ("tiny", "last"), ("other", "teachers/gone")):
        assert (workspace.current(recipe, name) / "number.txt").exists()
    assert runner.make(gone).reused
