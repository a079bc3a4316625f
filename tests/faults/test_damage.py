"""Damage is found and named, and a repair computes only what was damaged again."""

import copy
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stella_assets.core.runner import Runner
from stella_assets.core.step import upstream
from stella_assets.recipe import Graph, Recipe, read_recipe
from stella_assets.storage.database import open_table, table_names
from stella_assets.storage.integrity import verify_table
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.audit import Audit, AuditedRecipe, Auditor
from stella_assets.teachers.repair import repair
from stella_assets.teachers.snapshot import Snapshot, snapshot_tags
from stella_assets.teachers.tables import teacher_tables
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
    for step in upstream(Graph(recipe).concatenation):
        runner.make(step)
    return workspace


@pytest.fixture
def damaged(whole: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(whole.root, tmp_path / "workspace", symlinks=True)
    return Workspace(tmp_path / "workspace")


def audited(recipe: Recipe) -> AuditedRecipe:
    graph = Graph(recipe)
    return AuditedRecipe(recipe.name, graph.corpus, graph.teachers)


def verify(workspace: Workspace, recipe: Recipe, sample: int = 64) -> Audit:
    return Auditor([audited(recipe)], Runner(workspace, LOG), sample).verify()


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


def test_an_undamaged_store_is_reported_as_undamaged(whole: Workspace, recipe: Recipe):
    audit = verify(whole, recipe, sample=40)
    assert audit.damages == []
    assert {c.teacher: c.sampled for c in audit.comparisons} == {"minilm": 40, "lsa": 40}
    assert min(c.least_cosine for c in audit.comparisons) >= 0.999
    assert {table.rows for table in audit.tables} == {300}


@pytest.mark.parametrize(("corrupt", "said"), DAMAGES)
@pytest.mark.parametrize("pattern", ["teacher_vectors.*/data/*", "tiny.concatenated_vectors.lance/data/*"])
def test_damage_to_a_file_is_named_and_repaired_with_the_same_vectors(
    damaged: Workspace, whole: Workspace, recipe: Recipe, corrupt: Callable[[Path], None], said: str, pattern: str
):
    files = table_files(damaged, pattern)
    victim = files[len(files) // 2]
    corrupt(victim)
    unchanged = {path: path.stat().st_mtime_ns for path in files if path != victim}
    audit = verify(damaged, recipe)
    named = [damage for damage in audit.damages if damage.place == f"data/{victim.name}"]
    assert len(named) == 1
    assert said in named[0].what
    assert victim.parent.parent.name == f"{named[0].table}.lance"
    repair(audit, [audited(recipe)], Runner(damaged, LOG))
    assert verify(damaged, recipe).damages == []
    assert contents(damaged, recipe) == contents(whole, recipe)
    assert {path: path.stat().st_mtime_ns for path in unchanged} == unchanged  # only that was computed again


def test_every_byte_of_a_file_counts(damaged: Workspace):
    victim = table_files(damaged, "teacher_vectors.*/data/*")[0]
    original = victim.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(original), 40):
        content = bytearray(original)
        content[place] ^= 1 << int(place) % 8
        victim.write_bytes(content)
        name = victim.parent.parent.name.removesuffix(".lance")
        assert [damage.place for damage in verify_table(damaged, name).damages] == [f"data/{victim.name}"]


@pytest.mark.parametrize("corrupt", [flip_a_byte, truncate, delete])
def test_damage_to_the_newest_manifest_of_a_teacher_is_repaired(
    damaged: Workspace, whole: Workspace, recipe: Recipe, corrupt: Callable[[Path], None]
):
    victim = table_files(damaged, "teacher_vectors.*/_versions/*.manifest")[0]
    corrupt(victim)
    audit = verify(damaged, recipe)
    assert audit.damages
    repair(audit, [audited(recipe)], Runner(damaged, LOG))
    assert verify(damaged, recipe).damages == []
    assert contents(damaged, recipe) == contents(whole, recipe)


@pytest.mark.parametrize("by", ["run", "repair"])
@pytest.mark.parametrize("table", ["teacher_vectors.*", "tiny.concatenated_vectors.lance"])
def test_a_table_without_any_version_left_is_named_and_made_again(
    damaged: Workspace, whole: Workspace, recipe: Recipe, table: str, by: str
):
    victims = table_files(damaged, f"{table}/_versions/*.manifest")
    victims = [path for path in victims if path.parent == victims[0].parent]
    for path in victims:
        path.unlink()
    name = victims[0].parents[1].name.removesuffix(".lance")
    audit = verify(damaged, recipe)
    assert [damage.table for damage in audit.damages] == [name]
    assert "no version of it is left" in audit.damages[0].what
    if by == "repair":
        repair(audit, [audited(recipe)], Runner(damaged, LOG))
    runner = Runner(damaged, LOG)
    for step in upstream(Graph(recipe).concatenation):
        runner.make(step)
    assert verify(damaged, recipe).damages == []
    assert contents(damaged, recipe) == contents(whole, recipe)


@pytest.mark.parametrize(
    ("pattern", "again"),
    [
        ("teacher_vectors.*/data/*", [64]),
        ("teacher_vectors.*/_versions/1844*.manifest", [44]),  # of the last unit, which the version before lacks
        ("tiny.concatenated_vectors.lance/data/*", []),
        ("tiny.concatenated_vectors.lance/_versions/*.manifest", []),
        ("tiny.concatenated_vectors.lance/_refs/tags/*.json", []),
    ],
)
def test_the_next_run_names_what_is_damaged_and_makes_just_that_again(
    damaged: Workspace,
    whole: Workspace,
    recipe: Recipe,
    caplog: pytest.LogCaptureFixture,
    pattern: str,
    again: list[int],
):
    # The largest: of a teacher, one of the units of 64 texts, and not the last one of 44.
    flip_a_byte(victim := max(table_files(damaged, pattern), key=lambda path: path.stat().st_size))
    runner = Runner(damaged, LOG)
    for step in upstream(Graph(recipe).concatenation):
        runner.make(step)
    assert victim.name in caplog.text
    assert "is not used" in caplog.text
    assert contents(damaged, recipe) == contents(whole, recipe)
    metrics = [artefact.manifest.metrics for _, artefact in runner.made]
    assert [each["embedded_now"] for each in metrics if "embedded_now" in each] == again
    assert [damage for name in table_names(damaged) for damage in verify_table(damaged, name).damages] == []
    third = Runner(damaged, LOG)
    assert all(third.make(step).reused for step in upstream(Graph(recipe).concatenation))


@pytest.mark.parametrize("content", [b"", b"{", b"{}", None])
def test_a_tag_that_cannot_be_read_is_named_and_repaired(workspace: Workspace, content: bytes | None):
    teacher = Teacher("small", 3)
    for tag, texts in (("one", 100), ("two", 120)):
        write(workspace, tag, Corpus(range(texts)), teacher)
    path = Path(workspace.vectors) / "tiny.concatenated_vectors.lance/_refs/tags/one.json"
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1) if content is None else content)
    (damage,) = verify_table(workspace, "tiny.concatenated_vectors").damages
    assert damage.tags == ("one",)
    assert "one" in damage.what
    written = write(workspace, "one", Corpus(range(100)), teacher)
    assert written.version > 2
    require_equal(workspace, "one", Corpus(range(100)), teacher)
    require_equal(workspace, "two", Corpus(range(120)), teacher)
    assert verify_table(workspace, "tiny.concatenated_vectors").damages == []


def test_an_old_snapshot_that_is_repaired_does_not_become_the_newest(workspace: Workspace):
    teacher = Teacher("small", 3)
    for tag, texts in (("one", 100), ("two", 120)):
        write(workspace, tag, Corpus(range(texts)), teacher)
    folder = Path(workspace.vectors) / "tiny.concatenated_vectors.lance/_versions"
    flip_a_byte(max(folder.glob("*.manifest")))  # names count down: the oldest
    (damage,) = verify_table(workspace, "tiny.concatenated_vectors").damages
    assert damage.tags == ("one",)
    write(workspace, "one", Corpus(range(100)), teacher, damaged={damage.place})
    require_equal(workspace, "one", Corpus(range(100)), teacher)
    assert list(snapshot_tags(workspace, "tiny")) == ["one", "two"]


def test_values_of_a_damaged_file_are_never_read(damaged: Workspace):
    from stella_assets.storage.errors import DamageError
    from stella_assets.teachers.vectors import VectorTable

    victim = table_files(damaged, "teacher_vectors.*/data/*")[0]
    name = victim.parent.parent.name.removesuffix(".lance")
    dataset = open_table(damaged, name)
    ids = dataset.to_table(columns=["id"]).column(0).to_pylist()
    table = VectorTable(damaged, name.removeprefix("teacher_vectors."), dataset.schema.field("vector").type.list_size)
    assert len(table.fetch(ids[:1])) == 1
    flip_a_byte(victim)
    reopened = VectorTable(damaged, name.removeprefix("teacher_vectors."), table.codec.dim)
    with pytest.raises(DamageError, match=f"{victim.name} was changed"):
        reopened.fetch(ids[-1:])


def test_a_vector_of_another_text_is_found_by_recomputing(damaged: Workspace, whole: Workspace, recipe: Recipe):
    """Vectors whose digests are right, but that belong to other texts: as after a wrong import."""
    from stella_assets.storage.units import append_units, drop_units, write_unit
    from stella_assets.teachers.vectors import vector_schema

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
    audit = verify(damaged, recipe)
    assert any("not that of its text" in damage.what for damage in audit.damages)
    repair(audit, [audited(recipe)], Runner(damaged, LOG))
    assert verify(damaged, recipe).damages == []
    assert contents(damaged, recipe) == contents(whole, recipe)


def test_lost_rows_are_noticed_even_when_every_file_is_intact(damaged: Workspace, whole: Workspace, recipe: Recipe):
    from stella_assets.storage.units import drop_units

    name = teacher_tables(table_names(damaged))[0]
    dataset = open_table(damaged, name)
    drop_units(dataset.uri, dataset, [1])
    audit = verify(damaged, recipe)
    assert ["64 of 300 texts of recipe 'tiny' have no vector" in damage.what for damage in audit.damages] == [True]
    repair(audit, [audited(recipe)], Runner(damaged, LOG))
    assert verify(damaged, recipe).damages == []
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


def test_duplicate_ids_are_found(workspace: Workspace):
    from stella_assets.storage.units import append_units, write_unit
    from stella_assets.teachers.vectors import VectorTable

    ids = Corpus(range(20)).table.column("id").to_pylist()
    table = VectorTable(workspace, "f", 3)
    teacher = Teacher("small", 3)
    table.fill(ids, lambda at: [ids[i] for i in at], lambda unit: teacher.fetch(unit, unit).astype(np.float32))
    dataset = open_table(workspace, "teacher_vectors.f")
    again = write_unit(dataset.uri, dataset.to_table().slice(0, 4).combine_chunks(), dataset.schema)
    append_units(dataset.uri, dataset.schema, [again], dataset)
    (damage,) = verify_table(workspace, "teacher_vectors.f").damages
    assert (damage.place, damage.what) == ("id", "4 ids are there twice")
    from stella_assets.storage.integrity import drop_damaged

    assert drop_damaged(workspace, "teacher_vectors.f", [damage]) == 4
    assert verify_table(workspace, "teacher_vectors.f").damages == []
    assert len(VectorTable(workspace, "f", 3)) == 20
