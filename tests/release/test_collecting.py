"""Nothing that a build still needs is collected, a kill in a collector blocks nobody, and collectors do not disturb."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stella_assets.core.errors import UserError
from stella_assets.core.intact import DamagedArtefactError
from stella_assets.core.leases import leases, remove_expired, take_lease
from stella_assets.core.runner import Runner
from stella_assets.core.step import Artefact, BuildContext, Result, Step
from stella_assets.corpus.text import text_id
from stella_assets.pipelines.selection import select_steps, unlinked
from stella_assets.redistil import retention
from stella_assets.redistil.retention import collect_garbage
from stella_assets.release.alive import collecting, needed_shards, needed_vectors
from stella_assets.storage.artefacts import ArtefactStore, finished
from stella_assets.storage.database import open_table, table_names
from stella_assets.storage.locks import file_lock
from stella_assets.storage.removal import TRASH, finish_removals, remove_folder
from stella_assets.storage.shards import ShardStore, free_shards
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers import garbage
from stella_assets.teachers.garbage import Needed
from stella_assets.teachers.snapshot import snapshot_tags
from stella_assets.teachers.vectors import VectorTable
from tests.snapshots import Corpus, Teacher, vectors_of, write

IDS = [text_id(f"text number {number}") for number in range(20)]
WEEK = 7.01 * 86_400


def collect_all(workspace: Workspace) -> None:
    """What `vectors gc --superseded`, `corpus gc` and `redistil gc` do."""
    with collecting(workspace):
        garbage.collect_garbage(workspace, partial(needed_vectors, workspace), dry_run=False, superseded=True)
        free_shards(workspace, partial(needed_shards, workspace), dry_run=False)
    collect_garbage(workspace, "other", keep=1, retention_days=0)


def embed(workspace: Workspace) -> None:
    """What a build writes before anything links to it."""
    table = VectorTable(workspace, "f", 4)
    table.fill(IDS, lambda at: [IDS[i] for i in at], lambda ids: vectors_of(ids, 4, "f").astype(np.float32))
    write(workspace, "unlinked", Corpus(range(20)), Teacher("small", 3))
    import polars as pl

    ShardStore(workspace, "cleaned").get("0a", lambda: pl.DataFrame({"id": IDS}))


def what_is_there(workspace: Workspace) -> tuple[list[str], list[str], bool]:
    names = table_names(workspace)
    return names, list(snapshot_tags(workspace, "tiny")), ShardStore(workspace, "cleaned").holds("0a")


ALL = (["teacher_vectors.f", "tiny.concatenated_vectors"], ["unlinked"], True)
GONE = (["tiny.concatenated_vectors"], [], False)


def steps(build: Callable[[BuildContext], Result]) -> tuple[Step, Step]:
    source = Step("tiny", "source", "1", {}, lambda _context: Result())
    return source, Step("tiny", "embedded", "1", {}, build, dependencies=(source,))


def test_beside_a_running_build_nothing_that_it_wrote_or_reads_is_collected(workspace: Workspace, log: logging.Logger):
    seen = []

    def build(context: BuildContext) -> Result:
        embed(workspace)
        workspace.current("tiny", "source").unlink()  # the recipe was changed meanwhile
        collect_all(workspace)
        seen.append(what_is_there(workspace))
        assert context.artefact(source).folder in finished(workspace)
        return Result()

    source, step = steps(build)
    runner = Runner(workspace, log)
    for each in (source, step):
        runner.make(each)
    assert seen == [ALL]
    assert leases(workspace) == []
    collect_all(workspace)
    assert what_is_there(workspace) == GONE  # nothing names it, and no build may need it any more


def test_what_an_interrupted_build_wrote_stays_for_a_week(workspace: Workspace, log: logging.Logger):
    def build(_context: BuildContext) -> Result:
        embed(workspace)
        raise UserError("the network is gone.", "Run it again.")

    source, step = steps(build)
    runner = Runner(workspace, log)
    runner.make(source)
    with pytest.raises(UserError, match="the network is gone"):
        runner.make(step)
    lease = next(workspace.artefacts.rglob("lease.json"))
    dead = lease.read_text().replace(f'"{os.getpid()}@', '"999999999@')
    lease.write_text(dead)  # as after a kill
    assert [str(each) for each in leases(workspace)] == ["tiny/embedded"]
    collect_all(workspace)
    assert what_is_there(workspace) == ALL
    later = time.time() + WEEK
    assert leases(workspace, later) == []
    remove_expired(workspace, later)
    collect_all(workspace)
    assert what_is_there(workspace) == GONE


def test_a_collector_that_was_killed_blocks_nobody(workspace: Workspace):
    embed(workspace)
    (Path(workspace.vectors) / "teacher_vectors.empty.lance").mkdir()  # as older versions left it
    for root in (workspace.root, Path(workspace.vectors)):
        left = root / TRASH / "0-teacher_vectors.gone.lance" / "data"
        left.mkdir(parents=True)
        (left / "0.lance").write_bytes(b"0")
    assert open_table(workspace, "teacher_vectors.empty") is None
    assert "teacher_vectors.gone" not in " ".join(table_names(workspace))
    collect_all(workspace)
    assert what_is_there(workspace) == GONE
    assert not any(workspace.root.rglob(TRASH))


@pytest.mark.parametrize(
    "folder", ["shards/cleaned/0a", "checked/artefacts/corpus", "locks", "lancedb/a.lance/_digests", "tiny", "."]
)
def test_temporary_files_and_links_go_with_their_writer(workspace: Workspace, folder: str):
    place = workspace.root / folder
    place.mkdir(parents=True, exist_ok=True)
    dead, link, mine = (place / name for name in (".a.1.999999999", ".b.1.999999999", f".c.1.{os.getpid()}"))
    for path in (dead, mine):
        path.write_bytes(b"half")
    link.symlink_to(workspace.root)  # a temporary link, e.g. to an artefact
    finish_removals(workspace)
    assert [path.name for path in place.glob(".*")] == [mine.name]


def test_a_folder_is_removed_also_while_others_empty_the_trash(tmp_path: Path):
    def remove(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        remove_folder(folder, tmp_path)
        assert not folder.exists()

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(remove, number) for number in range(300)]
        calls += [pool.submit(finish_removals, Workspace(tmp_path)) for _ in range(300)]
        for call in calls:
            call.result()


def test_a_build_that_was_killed_after_its_artefact_was_linked_holds_no_lease(
    workspace: Workspace, log: logging.Logger
):
    step = Step("tiny", "made", "1", {}, lambda _context: Result())

    def kill_at_the_end() -> Runner:
        runner = Runner(workspace, log)
        made = runner.make(step)
        scratch = runner.store.scratch("made", made.folder.name)
        take_lease(scratch, "tiny", "made", {})
        lease = scratch / "lease.json"
        lease.write_text(lease.read_text().replace(f'"{os.getpid()}@', '"999999999@'))
        assert leases(workspace) != []
        return Runner(workspace, log)

    selection = select_steps([step], runner := kill_at_the_end())
    assert (selection.executed, unlinked(selection, runner)) == ([], [step])
    runner.link(step)  # as the next run does
    assert (leases(workspace), unlinked(selection, runner)) == ([], [])
    runner = kill_at_the_end()
    with collecting(workspace) as builds:
        assert builds == []
    assert runner.find(step) is not None


def test_collectors_and_a_run_do_not_fail_one_another(workspace: Workspace, log: logging.Logger):
    def make(number: int) -> None:
        loose = Step("tiny", "loose", "1", {"number": number}, lambda _context: Result())
        Runner(workspace, log).make(loose, link=number % 2 == 0)

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(make, number) for number in range(40)]
        calls += [pool.submit(collect_all, workspace) for _ in range(12)]
        for call in calls:
            call.result()
    assert leases(workspace) == []
    assert (workspace.current("tiny", "loose") / "manifest.json").is_file()


def begun(workspace: Workspace) -> None:
    """A build that has begun."""
    take_lease(ArtefactStore(workspace).scratch("embedded", "0a"), "tiny", "embedded", {})


def naming_vectors(context: BuildContext) -> Result:
    reference = {"dim": 4, "rows": 20, "fingerprints": {"document": "f"}, "digest": ""}
    (context.folder / "vectors.json").write_text(json.dumps(reference))
    return Result()


def made(workspace: Workspace) -> Artefact:
    """A build that has begun, and ended: a recipe has its artefact."""
    return Runner(workspace, logging.getLogger("test")).make(Step("tiny", "teacher_vectors/t", "1", {}, naming_vectors))


@pytest.mark.parametrize("build", [begun, made])
def test_what_a_build_wrote_while_the_collector_was_at_work_stays(
    workspace: Workspace, build: Callable[[Workspace], None], monkeypatch: pytest.MonkeyPatch
):
    remove = retention._remove_artefacts

    def build_meanwhile(*arguments: Any, **options: Any) -> list[str]:
        embed(workspace)
        build(workspace)
        return remove(*arguments, **options)

    monkeypatch.setattr(retention, "_remove_artefacts", build_meanwhile)
    collect_garbage(workspace, "other", keep=1, retention_days=0)
    assert "teacher_vectors.f" in table_names(workspace)


@pytest.mark.parametrize("build", [begun, made])
def test_a_collector_that_waited_for_a_writer_looks_again(workspace: Workspace, build: Callable[[Workspace], None]):
    embed(workspace)
    looked, look = threading.Event(), partial(needed_vectors, workspace)

    def look_and_say() -> Needed:
        needed = look()
        looked.set()
        return needed

    with ThreadPoolExecutor(1) as pool:
        with file_lock(workspace, "teacher_vectors.f"), file_lock(workspace, "tiny.concatenated_vectors"):
            call = pool.submit(garbage.collect_garbage, workspace, look_and_say, dry_run=False, superseded=True)
            assert looked.wait(60)
            assert look() == Needed(set(), set(), set())  # so far, nothing needs the table
            build(workspace)
        call.result()
    assert "teacher_vectors.f" in table_names(workspace)


def test_a_shard_that_was_written_while_the_collector_looked_stays(workspace: Workspace):
    import polars as pl

    store = ShardStore(workspace, "cleaned")
    store.get("0a", lambda: pl.DataFrame({"id": IDS}))

    def look() -> set[str]:
        store.get("0b", lambda: pl.DataFrame({"id": IDS}))
        return set()

    [freed] = free_shards(workspace, look, dry_run=False)
    assert (freed["files"], store.holds("0a"), store.holds("0b")) == (1, False, True)


def test_a_dry_run_names_what_was_never_committed(workspace: Workspace):
    left = Path(workspace.vectors) / "teacher_vectors.f.lance" / "data"
    left.mkdir(parents=True)
    (left / "0.lance").write_bytes(b"0")
    look = partial(needed_vectors, workspace)
    would_go = garbage.collect_garbage(workspace, look, dry_run=True, superseded=False)
    assert [each.table for each in would_go] == ["teacher_vectors.f"]
    assert garbage.collect_garbage(workspace, look, dry_run=False, superseded=False) == would_go


@pytest.mark.parametrize(
    "damage", [lambda path: path.unlink(), lambda path: path.write_text(path.read_text().replace('"f"', '"g"'))]
)
def test_a_damaged_artefact_gives_no_vectors_away(workspace: Workspace, damage: Callable[[Path], object]):
    embed(workspace)
    file = made(workspace).folder / "vectors.json"
    collect_all(workspace)
    assert "teacher_vectors.f" in table_names(workspace)
    damage(file)
    with pytest.raises(DamagedArtefactError, match=r"vectors\.json"):
        collect_all(workspace)
    with pytest.raises(DamagedArtefactError, match=r"vectors\.json"):
        needed_shards(workspace)
    assert "teacher_vectors.f" in table_names(workspace)
