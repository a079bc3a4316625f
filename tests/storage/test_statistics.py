"""DuckDB views over the Parquet files of artefacts and the records of runs."""

import json
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from storage.workspace import Workspace

from storage.statistics import (
    CURRENT_VIEWS,
    FUNNEL,
    HISTORY_VIEWS,
    RUNS,
    VECTOR_STATS,
    record_run,
    refresh_views,
    write_table,
)

VIEWS = {"artefacts", "snapshots", "runs", "redistillations", *CURRENT_VIEWS, *HISTORY_VIEWS}


def test_views_are_empty_and_typed_before_anything_was_made(workspace: Workspace):
    with duckdb.connect(str(refresh_views(workspace)), read_only=True) as connection:
        assert {row[0] for row in connection.execute("SHOW TABLES").fetchall()} == VIEWS
        for name in VIEWS:
            assert connection.execute(f"SELECT * FROM {name}").fetchall() == []
        for name, (_, schema) in CURRENT_VIEWS.items():
            assert connection.table(name).columns == ["recipe", *schema.names]
        for name, schema in HISTORY_VIEWS.items():
            assert connection.table(name).columns == [*schema.names, "current"]


def test_views_cover_every_recipe_and_are_replaced_while_a_reader_is_connected(workspace: Workspace):
    for recipe, texts in (("one", 3), ("two", 4)):
        folder = workspace.root / recipe / "corpus"
        folder.mkdir(parents=True)
        write_table(folder / "funnel.parquet", FUNNEL, [{"source": "s", "rule": "kept", "texts": texts}])
        path = refresh_views(workspace)
        if recipe == "one":
            reader = duckdb.connect(str(path), read_only=True)
    assert reader.execute("SELECT recipe, texts FROM funnel").fetchall() == [("one", 3)]
    reader.close()
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT recipe, texts FROM funnel ORDER BY 1").fetchall() == [("one", 3), ("two", 4)]


def write_statistics(workspace: Workspace, name: str, snapshot: str, schema: pa.Schema = VECTOR_STATS) -> None:
    folder = workspace.artefacts / "vector_stats" / name
    folder.mkdir(parents=True)
    row = dict.fromkeys(schema.names) | {"recipe": "tiny", "snapshot": snapshot, "rows": len(name)}
    write_table(folder / "vector_stats.parquet", schema, [row])
    manifest = {"identity": {"asset": "vector_stats", "inputs": {"concatenated_vectors": f"digest {snapshot}"}}}
    (folder / "manifest.json").write_text(
        json.dumps({**manifest, "key": name, "digest": "", "run_info": {}, "metrics": {}})
    )


def test_statistics_of_earlier_snapshots_stay_once_each_and_the_current_one_is_marked(workspace: Workspace):
    older = pa.schema([field for field in VECTOR_STATS if field.name not in {"recipe", "snapshot"}])
    write_statistics(workspace, "of an older version", "zzzz", older)
    for name, snapshot in (("earlier", "aaaa"), ("now", "bbbb"), ("again in another way", "bbbb")):
        write_statistics(workspace, name, snapshot)
    (workspace.root / "tiny").mkdir()
    (workspace.root / "tiny" / "vector_stats").symlink_to("../artefacts/vector_stats/now")
    with duckdb.connect(str(refresh_views(workspace)), read_only=True) as connection:
        rows = connection.execute("SELECT snapshot, rows, current FROM vector_stats ORDER BY ALL").fetchall()
    assert rows == [("aaaa", 7, False), ("bbbb", 3, True)]


def test_a_home_whose_path_holds_pattern_characters_works(tmp_path: Path):
    workspace = Workspace(tmp_path / "a[1]*b'c")
    write_statistics(workspace, "now", "aaaa")
    record_run(workspace, "r1", {"run_id": "r1", "started_at": "2026-01-02 03:04:05"})
    with duckdb.connect(str(refresh_views(workspace)), read_only=True) as connection:
        for view in ("vector_stats", "artefacts", "runs"):
            assert connection.execute(f"SELECT count(*) FROM {view}").fetchall() == [(1,)]


@pytest.mark.parametrize("succeeded", [True, False])
def test_runs_are_recorded_line_by_line(workspace: Workspace, succeeded: bool):
    row = {"run_id": "r1", "recipe": "tiny", "asset": "corpus", "started_at": "2026-01-02 03:04:05.5", "seconds": 2.5}
    for asset in ("corpus", "stage_1"):
        record_run(workspace, "r1", {**row, "asset": asset, "succeeded": succeeded})
    with duckdb.connect(str(refresh_views(workspace)), read_only=True) as connection:
        found = connection.execute("SELECT asset, succeeded, year(started_at), seconds FROM runs ORDER BY 1").fetchall()
        assert connection.table("runs").columns == RUNS.names
    assert found == [("corpus", succeeded, 2026, 2.5), ("stage_1", succeeded, 2026, 2.5)]
