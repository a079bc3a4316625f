"""DuckDB views over the Parquet files of artefacts and the records of runs."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from stella_assets.core.runner import Runner
from stella_assets.core.step import BuildContext, Result, Step
from stella_assets.core.tables import ARTEFACTS, RUNS, record_run
from stella_assets.corpus.tables import DROPPED, FUNNEL
from stella_assets.storage.tables import SQL_TYPES, TEXT, Table, View, write_table
from stella_assets.storage.views import refresh_views, view_definitions
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.tables import SNAPSHOTS, VECTOR_STATS

TABLES: list[View] = [FUNNEL, VECTOR_STATS, ARTEFACTS, SNAPSHOTS, RUNS]


def refreshed(workspace: Workspace, tables: list[View] = TABLES) -> str:
    refresh_views(workspace, tables)
    return str(workspace.statistics)


def test_views_are_empty_and_typed_before_anything_was_made(workspace: Workspace):
    with duckdb.connect(refreshed(workspace), read_only=True) as connection:
        names = {row[0] for row in connection.execute("SHOW TABLES").fetchall()}
        assert names == {table.name for table in TABLES}
        for name in names:
            assert connection.execute(f"SELECT * FROM {name}").fetchall() == []
        assert connection.table("funnel").columns == ["recipe", *FUNNEL.schema.names]
        assert connection.table("vector_stats").columns == [*VECTOR_STATS.schema.names, "current"]
        expected = [*(SQL_TYPES[field.type] for field in VECTOR_STATS.schema), "BOOLEAN"]
        assert list(map(str, connection.table("vector_stats").types)) == expected
        assert connection.table("snapshots").columns == [*SNAPSHOTS.columns, "current"]
        assert connection.table("artefacts").columns == list(ARTEFACTS.columns)


def write_funnel(workspace: Workspace, recipe: str, texts: int) -> Path:
    folder = workspace.root / recipe / "corpus"
    folder.mkdir(parents=True)
    FUNNEL.write(folder, [{"source": "s", "rule": "kept", "texts": texts}])
    return folder / FUNNEL.file


def test_views_cover_every_recipe_and_are_replaced_while_a_reader_is_connected(workspace: Workspace):
    for recipe, texts in (("one", 3), ("two", 4)):
        write_funnel(workspace, recipe, texts)
        path = refreshed(workspace)
        if recipe == "one":
            reader = duckdb.connect(path, read_only=True)
    assert reader.execute("SELECT recipe, texts FROM funnel").fetchall() == [("one", 3)]
    reader.close()
    with duckdb.connect(path, read_only=True) as connection:
        assert connection.execute("SELECT recipe, texts FROM funnel ORDER BY 1").fetchall() == [("one", 3), ("two", 4)]


def test_a_view_over_any_asset_has_those_of_a_group_too_and_nothing_that_was_removed(workspace: Workspace):
    for folder in ("one/corpus", "one/teacher_vectors/far", ".trash/1a2b", "artefacts/corpus/0f"):
        (workspace.root / folder).mkdir(parents=True)
        DROPPED.write(workspace.root / folder, [dict.fromkeys(DROPPED.schema.names) | {"rule": folder}])
    with duckdb.connect(refreshed(workspace, [DROPPED]), read_only=True) as connection:
        rows = connection.execute("SELECT recipe, rule FROM dropped ORDER BY 2").fetchall()
    assert rows == [("one", "one/corpus"), ("one", "one/teacher_vectors/far")]


def test_views_that_are_up_to_date_are_not_written_again(workspace: Workspace):
    write_funnel(workspace, "one", 3)
    written = Path(refreshed(workspace)).stat().st_mtime_ns
    assert Path(refreshed(workspace)).stat().st_mtime_ns == written
    write_funnel(workspace, "two", 3)
    assert Path(refreshed(workspace)).stat().st_mtime_ns > written


@pytest.mark.parametrize(
    "damage", [lambda content: b"", lambda content: content[:-100], lambda content: b"?" + content[1:]]
)
def test_a_damaged_database_of_views_is_written_again(workspace: Workspace, damage: Callable[[bytes], bytes]):
    write_funnel(workspace, "one", 3)
    database = Path(refreshed(workspace))
    database.write_bytes(damage(database.read_bytes()))
    with duckdb.connect(refreshed(workspace), read_only=True) as connection:
        assert connection.execute(f"SELECT count(*) FROM {FUNNEL.name}").fetchone() == (1,)


@pytest.mark.parametrize("content", [b"", b"no Parquet", b"PAR1" + bytes(20) + b"PAR1"])
def test_a_damaged_file_is_named_and_the_other_files_stay_readable(workspace: Workspace, content: bytes):
    write_funnel(workspace, "one", 3)
    damaged = write_funnel(workspace, "two", 4)
    damaged.write_bytes(content)
    write_statistics(workspace, "whole", "aaaa")
    write_statistics(workspace, "torn", "bbbb")
    torn = workspace.artefacts / "vector_stats" / "torn"
    (torn / VECTOR_STATS.file).write_bytes(content)
    (torn / "manifest.json").write_bytes(content[:0])
    assert set(refresh_views(workspace, TABLES).unreadable) == {
        damaged.absolute(), (torn / VECTOR_STATS.file).absolute(), (torn / "manifest.json").absolute()
    }  # fmt: skip
    with duckdb.connect(str(workspace.statistics), read_only=True) as connection:
        assert connection.execute("SELECT recipe, texts FROM funnel").fetchall() == [("one", 3)]
        assert connection.execute("SELECT snapshot FROM vector_stats").fetchall() == [("aaaa",)]
        assert connection.execute("SELECT key FROM artefacts").fetchall() == [("whole",)]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"identity": {"asset": "corpus"', b"\xff"])
def test_a_manifest_that_was_cut_short_breaks_no_view(workspace: Workspace, content: bytes):
    write_statistics(workspace, "whole", "aaaa")
    write_statistics(workspace, "torn", "bbbb")
    damaged = workspace.artefacts / "vector_stats" / "torn" / "manifest.json"
    damaged.write_bytes(content)
    assert damaged.absolute() in refresh_views(workspace, TABLES).unreadable
    with duckdb.connect(str(workspace.statistics), read_only=True) as connection:
        assert connection.execute("SELECT key FROM artefacts").fetchall() == [("whole",)]
        assert connection.execute("SELECT snapshot FROM vector_stats").fetchall() == [("aaaa",)]


@pytest.mark.parametrize("content", [b"{", b"\xff\n", b'{"run_id": "r2"'])
def test_a_record_of_runs_that_cannot_be_read_is_named_and_the_others_stay(workspace: Workspace, content: bytes):
    record_run(workspace, "r1", {"run_id": "r1", "started_at": "2026-01-02 03:04:05"})
    record_run(workspace, "r2", {"run_id": "r2", "started_at": "2026-01-02 03:04:05"})
    damaged = workspace.root / "runs" / "r2.jsonl"
    damaged.write_bytes(damaged.read_bytes() + content)
    assert refresh_views(workspace, TABLES).unreadable == [damaged.absolute()]
    with duckdb.connect(str(workspace.statistics), read_only=True) as connection:
        assert connection.execute("SELECT run_id FROM runs").fetchall() == [("r1",)]


def test_a_changed_byte_anywhere_in_a_file_leaves_it_out_of_its_view(workspace: Workspace, log: logging.Logger):
    def build(context: BuildContext) -> Result:
        FUNNEL.write(context.folder, [{"source": "s", "rule": "read", "texts": 3}])
        return Result()

    for recipe in ("one", "two"):
        Runner(workspace, log).make(Step(recipe, "corpus", "1", {"recipe": recipe}, build))
    path = workspace.current("two", "corpus") / FUNNEL.file
    content = path.read_bytes()
    for place in range(0, 8 * len(content), 997):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        assert refresh_views(workspace, TABLES).unreadable == [path.absolute()]
        with duckdb.connect(str(workspace.statistics), read_only=True) as connection:
            assert connection.execute("SELECT recipe, texts FROM funnel").fetchall() == [("one", 3)]


def write_statistics(
    workspace: Workspace, name: str, snapshot: str, schema: pa.Schema = VECTOR_STATS.schema, older: bool = False
) -> None:
    folder = workspace.artefacts / "vector_stats" / name
    folder.mkdir(parents=True)
    row = dict.fromkeys(schema.names) | {"recipe": "tiny", "snapshot": snapshot, "rows": len(name)}
    write_table(folder / "vector_stats.parquet", schema, [row])
    manifest = {"identity": {"asset": "vector_stats", "inputs": {"concatenated_vectors": f"digest {snapshot}"}}}
    run_info, metrics = ("about", "facts") if older else ("run_info", "metrics")
    body = {**manifest, "key": name, "digest": "", run_info: {"recipe": "tiny", "seconds": 2.5}, metrics: {"rows": 7}}
    (folder / "manifest.json").write_text(json.dumps(body))


def test_statistics_of_earlier_snapshots_stay_once_each_and_the_current_one_is_marked(workspace: Workspace):
    older = pa.schema([field for field in VECTOR_STATS.schema if field.name not in {"recipe", "snapshot"}])
    write_statistics(workspace, "of an older version", "zzzz", older)
    for name, snapshot in (("earlier", "aaaa"), ("now", "bbbb"), ("again in another way", "bbbb")):
        write_statistics(workspace, name, snapshot)
    (workspace.root / "tiny").mkdir()
    (workspace.root / "tiny" / "vector_stats").symlink_to("../artefacts/vector_stats/now")
    with duckdb.connect(refreshed(workspace), read_only=True) as connection:
        rows = connection.execute("SELECT snapshot, rows, current FROM vector_stats ORDER BY ALL").fetchall()
    assert rows == [("aaaa", 7, False), ("bbbb", 3, True)]


def test_manifests_of_an_older_version_have_the_same_columns(workspace: Workspace):
    write_statistics(workspace, "now", "aaaa")
    write_statistics(workspace, "before", "aaaa", older=True)
    with duckdb.connect(refreshed(workspace), read_only=True) as connection:
        query = "SELECT key, recipe, seconds, metrics->>'rows' FROM artefacts ORDER BY key"
        rows = connection.execute(query).fetchall()
    assert rows == [("before", "tiny", 2.5, "7"), ("now", "tiny", 2.5, "7")]


def test_a_workspace_whose_path_has_pattern_characters_works(tmp_path: Path):
    workspace = Workspace(tmp_path / "a[1]*b'c")
    write_statistics(workspace, "now", "aaaa")
    record_run(workspace, "r1", {"run_id": "r1", "started_at": "2026-01-02 03:04:05"})
    with duckdb.connect(refreshed(workspace), read_only=True) as connection:
        for view in ("vector_stats", "artefacts", "runs"):
            assert connection.execute(f"SELECT count(*) FROM {view}").fetchall() == [(1,)]


@pytest.mark.parametrize("succeeded", [True, False])
def test_runs_are_recorded_line_by_line(workspace: Workspace, succeeded: bool):
    row = {"run_id": "r1", "recipe": "tiny", "asset": "corpus", "started_at": "2026-01-02 03:04:05.5", "seconds": 2.5}
    for asset in ("corpus", "stage_1"):
        record_run(workspace, "r1", {**row, "asset": asset, "succeeded": succeeded})
    with duckdb.connect(refreshed(workspace), read_only=True) as connection:
        found = connection.execute("SELECT asset, succeeded, year(started_at), seconds FROM runs ORDER BY 1").fetchall()
        assert connection.table("runs").columns == RUNS.schema.names
    assert found == [("corpus", succeeded, 2026, 2.5), ("stage_1", succeeded, 2026, 2.5)]


def test_every_declared_table_becomes_a_view(workspace: Workspace):
    colours = Table("colours", "paint/*", "colours.parquet", pa.schema([("colour", TEXT)]))
    folder = workspace.root / "one" / "paint" / "wall"
    folder.mkdir(parents=True)
    colours.write(folder, [{"colour": "blue"}])
    selects, files = view_definitions(workspace, [colours])
    assert files.unreadable == []
    assert duckdb.sql(selects["colours"]).fetchall() == [("one", "blue")]
