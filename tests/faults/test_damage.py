"""Damage is found and named, and a repair makes just what was damaged again."""

import copy
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from storage.workspace import Workspace

from stella_assets.core.step import Runner, all_steps
from stella_assets.recipe import Recipe, read_recipe
from stella_assets.teachers.audit import Auditor
from stella_assets.teachers.concatenate import concatenation_step
from storage.database import open_table, table_names
from storage.integrity import teacher_tables, verify_table
from storage.snapshot import Snapshot, snapshot_tags
from tests.conftest import TINY, write_recipe
from tests.snapshots import Corpus, Teacher, require_equal, write

LOG = logging.getLogger("test")


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def delete(path: Path) -> None:
    path.unlink()


DAMAGES = [(flip_a_byte, "was changed"), (truncate, "is truncated"), (delete, "is missing")]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    raw = copy.deepcopy(TINY)
    raw["corpus"]["sources"][0] |= {"packages": ["networkx"], "limit": 300}
    raw["teachers"][0]["unit_rows"] = raw["teachers"][1]["unit_rows"] = 64
    return read_recipe(write_recipe(tmp_path_factory.mktemp("recipe"), raw))


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("whole"))
    runner = Runner(workspace, LOG)
    for step in all_steps(concatenation_step(recipe)):
        runner.make(step)
    return workspace


@pytest.fixture
def damaged(whole: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(whole.root, tmp_path / "workspace", symlinks=True)
    return Workspace(tmp_path / "workspace")


def table_files(workspace: Workspace, pattern: str) -> list[Path]:
    return sorted(Path(workspace.vectors).glob(pattern))


def contents(workspace: Workspace, recipe: Recipe) -> dict[str, object]:
    tables = {
        name: open_table(workspace, name).to_table().sort_by("id") for name in teacher_tables(table_names(workspace))
    }
    (tag,) = snapshot_tags(workspace, recipe.name)
    snapshot = Snapshot.open(workspace, recipe.name, tag)
    rows = np.arange(len(snapshot))
    return {**tables, "rows": snapshot.take(rows, ["id", "text"]), "vectors": snapshot.vectors(rows).tobytes()}


def test_a_whole_store_is_said_to_be_whole(whole: Workspace, recipe: Recipe):
    audit = Auditor(whole, [recipe], LOG, sample=40).verify()
    assert audit.damages == []
    assert {c.teacher: c.sampled for c in audit.comparisons} == {"minilm": 40, "lsa": 40}
    assert min(c.least_cosine for c in audit.comparisons) >= 0.999
    assert {table.rows for table in audit.tables} == {300}


@pytest.mark.parametrize(("harm", "said"), DAMAGES)
@pytest.mark.parametrize("pattern", ["teacher_vectors.*/data/*", "tiny.concatenated_vectors.lance/data/*"])
def test_harm_to_a_file_is_named_and_repaired_with_the_same_vectors(
    damaged: Workspace, whole: Workspace, recipe: Recipe, harm: Callable[[Path], None], said: str, pattern: str
):
    files = table_files(damaged, pattern)
    victim = files[len(files) // 2]
    harm(victim)
    untouched = {path: path.stat().st_mtime_ns for path in files if path != victim}
    auditor = Auditor(damaged, [recipe], LOG)
    audit = auditor.verify()
    named = [damage for damage in audit.damages if damage.place == f"data/{victim.name}"]
    assert len(named) == 1
    assert said in named[0].what
    assert victim.parent.parent.name == f"{named[0].table}.lance"
    auditor.repair(audit)
    assert Auditor(damaged, [recipe], LOG).verify().damages == []
    assert contents(damaged, recipe) == contents(whole, recipe)
    assert {path: path.stat().st_mtime_ns for path in untouched} == untouched  # just that was made again


def test_every_byte_of_a_file_counts(damaged: Workspace):
    victim = table_files(damaged, "teacher_vectors.*/data/*")[0]
    original = victim.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(original), 40):
        content = bytearray(original)
        content[place] ^= 1 << int(place) % 8
        victim.write_bytes(content)
        name = victim.parent.parent.name.removesuffix(".lance")
        assert [damage.place for damage in verify_table(damaged, name).damages] == [f"data/{victim.name}"]


@pytest.mark.parametrize("harm", [flip_a_byte, truncate, delete])
def test_harm_to_the_newest_manifest_of_a_teacher_is_repaired(
    damaged: Workspace, whole: Workspace, recipe: Recipe, harm: Callable[[Path], None]
):
    victim = table_files(damaged, "teacher_vectors.*/_versions/*.manifest")[0]
    harm(victim)
    auditor = Auditor(damaged, [recipe], LOG)
    audit = auditor.verify()
    assert audit.damages
    auditor.repair(audit)
    assert Auditor(damaged, [recipe], LOG).verify().damages == []
    assert contents(damaged, recipe) == contents(whole, recipe)


def test_a_vector_that_is_not_its_texts_is_found_by_recomputing(damaged: Workspace, whole: Workspace, recipe: Recipe):
    """Vectors whose digests are right, but that belong to other texts: as a wrong import would leave them."""
    from storage.units import write_unit
    from storage.vectors import append_units, drop_units, vector_schema

    name = next(
        n for n in teacher_tables(table_names(damaged)) if open_table(damaged, n).schema.field(1).type.list_size > 32
    )
    dataset = open_table(damaged, name)
    rows = dataset.to_table()
    swapped = rows.set_column(1, rows.schema.field(1), rows.column("vector").take(np.roll(np.arange(len(rows)), 1)))
    schema = vector_schema(384, json.loads(dataset.schema.metadata[b"stella.teacher"]))
    drop_units(dataset.uri, dataset, [fragment.fragment_id for fragment in dataset.get_fragments()])
    unit = write_unit(dataset.uri, swapped.combine_chunks().cast(schema), schema)
    append_units(dataset.uri, schema, [unit], open_table(damaged, name))
    auditor = Auditor(damaged, [recipe], LOG)
    audit = auditor.verify()
    assert any("not that of its text" in damage.what for damage in audit.damages)
    auditor.repair(audit)
    assert Auditor(damaged, [recipe], LOG).verify().damages == []
    assert contents(damaged, recipe) == contents(whole, recipe)


def test_lost_rows_are_missed_even_when_every_file_is_whole(damaged: Workspace, whole: Workspace, recipe: Recipe):
    from storage.vectors import drop_units

    name = teacher_tables(table_names(damaged))[0]
    dataset = open_table(damaged, name)
    drop_units(dataset.uri, dataset, [1])
    auditor = Auditor(damaged, [recipe], LOG)
    audit = auditor.verify()
    assert ["64 of 300 texts of recipe 'tiny' have no vector" in damage.what for damage in audit.damages] == [True]
    auditor.repair(audit)
    assert Auditor(damaged, [recipe], LOG).verify().damages == []
    assert contents(damaged, recipe) == contents(whole, recipe)


def test_damage_to_an_old_snapshot_names_the_snapshots_that_share_the_file(workspace: Workspace):
    teacher = Teacher("small", 3)
    write(workspace, "one", Corpus(range(100)), teacher)
    write(workspace, "two", Corpus(range(120)), teacher)
    write(workspace, "three", Corpus(range(5, 120)), teacher)
    shared = Snapshot.open(workspace, "tiny", "one").dataset.get_fragments()[0].data_files()[1].path
    flip_a_byte(Path(workspace.vectors) / "tiny.concatenated_vectors.lance" / "data" / shared)
    (damage,) = verify_table(workspace, "tiny.concatenated_vectors").damages
    assert damage.tags == ("one", "three", "two")
    written = write(workspace, "two", Corpus(range(120)), teacher, damaged={damage.place})
    assert written.rows_written == 0
    assert len(teacher.asked) == 50  # one unit's column
    require_equal(workspace, "two", Corpus(range(120)), teacher)


def test_doubled_ids_are_found(workspace: Workspace):
    from storage.units import write_unit
    from storage.vectors import VectorTable, append_units

    ids = Corpus(range(20)).table.column("id").to_pylist()
    table = VectorTable(workspace, "f", 3)
    teacher = Teacher("small", 3)
    table.fill(ids, lambda at: [ids[i] for i in at], lambda unit: teacher.fetch(unit, unit).astype(np.float32))
    dataset = open_table(workspace, "teacher_vectors.f")
    again = write_unit(dataset.uri, dataset.to_table().slice(0, 4).combine_chunks(), dataset.schema)
    append_units(dataset.uri, dataset.schema, [again], dataset)
    (damage,) = verify_table(workspace, "teacher_vectors.f").damages
    assert (damage.place, damage.what) == ("id", "4 ids are there twice")
    from storage.integrity import drop_damaged

    assert drop_damaged(workspace, "teacher_vectors.f", [damage]) == 4
    assert verify_table(workspace, "teacher_vectors.f").damages == []
    assert len(VectorTable(workspace, "f", 3)) == 20
