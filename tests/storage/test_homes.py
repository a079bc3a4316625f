"""Homes that share a store of vectors: the collector of one takes nothing that another one uses."""

from pathlib import Path

import numpy as np
import pytest

from stella_assets.core.errors import UserError
from stella_assets.corpus.text import text_id
from stella_assets.storage.database import table_names
from stella_assets.storage.garbage import Garbage
from stella_assets.storage.homes import homes_of, other_homes
from stella_assets.storage.notes import note_names
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.garbage import Needed, collect_garbage, require_homes
from stella_assets.teachers.snapshot import snapshot_tags
from stella_assets.teachers.vectors import VectorTable
from tests.snapshots import Corpus, Teacher, vectors_of, write

IDS = [text_id(f"text {number}") for number in range(10)]
NOTHING = Needed(frozenset(), frozenset())


@pytest.fixture
def homes(tmp_path: Path) -> tuple[Workspace, Workspace]:
    store = str(tmp_path / "shared")
    return Workspace(tmp_path / "mine", store), Workspace(tmp_path / "theirs", store)


def embed(workspace: Workspace, fingerprint: str) -> None:
    table = VectorTable(workspace, fingerprint, 4)
    table.fill(IDS, lambda at: [IDS[i] for i in at], lambda ids: vectors_of(ids, 4, "f").astype(np.float32))


def collect(workspace: Workspace, **options: bool | list[str]) -> list[Garbage]:
    return collect_garbage(workspace, lambda: NOTHING, **{"dry_run": False, "superseded": True, **options})  # type: ignore[arg-type]


def test_a_collector_takes_what_its_own_home_made_and_nothing_that_another_one_uses(homes: tuple[Workspace, Workspace]):
    mine, theirs = homes
    embed(mine, "mine")
    embed(mine, "both")
    embed(theirs, "both")  # all rows are there: it reads them, and writes nothing
    write(theirs, "tag", Corpus(range(5)), Teacher("small", 3))
    made = table_names(mine)
    assert {garbage.table for garbage in collect(mine, dry_run=True)} == {"teacher_vectors.mine"}
    assert table_names(mine) == made
    collect(mine)
    assert table_names(mine) == [name for name in made if name != "teacher_vectors.mine"]
    assert list(snapshot_tags(theirs, "tiny")) == ["tag"]


def test_what_another_home_is_about_to_commit_stays(homes: tuple[Workspace, Workspace]):
    mine, theirs = homes
    writer = VectorTable(theirs, "first", 4)

    def compute(ids: list[str]) -> np.ndarray:
        # A collector of the other home, which sees no lock of this one, while the first unit is computed.
        assert collect(mine) == []
        return vectors_of(ids, 4, "f").astype(np.float32)

    assert writer.fill(IDS, lambda at: [IDS[i] for i in at], compute, unit_rows=4) == 10
    assert writer.fetch(IDS).shape == (10, 4)


def test_a_home_that_is_gone_is_named_and_keeps_nothing_any_more(homes: tuple[Workspace, Workspace]):
    mine, theirs = homes
    embed(theirs, "old")
    (home,) = homes_of(mine)
    assert homes_of(mine)[home].endswith(f":{theirs.root}")
    assert homes_of(theirs) == {}
    with pytest.raises(UserError, match=rf"--drop-home x: no other home.*{home} \("):
        require_homes(mine, ["x"])
    require_homes(mine, [home])
    collect(mine, dry_run=True, gone=[home])
    assert homes_of(mine)
    collect(mine, gone=[home])
    assert table_names(mine) == []
    assert homes_of(mine) == {}


def test_a_home_with_its_vectors_in_its_own_folder_notes_nothing(tmp_path: Path):
    workspace = Workspace(tmp_path / "home")
    embed(workspace, "own")
    assert note_names(workspace, "teacher_vectors.own") == []
    assert not (workspace.root / "home_id").exists()
    assert other_homes(workspace, "teacher_vectors.own") == []
