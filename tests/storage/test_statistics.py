"""DuckDB views over the Parquet files of artefacts and the records of runs."""

import duckdb
import pytest

from storage.home import Home
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

VIEWS = {"artefacts", "snapshots", "runs", *CURRENT_VIEWS, *HISTORY_VIEWS}


def test_views_are_empty_and_typed_before_anything_was_made(home: Home):
    with duckdb.connect(str(refresh_views(home)), read_only=True) as connection:
        assert {row[0] for row in connection.execute("SHOW TABLES").fetchall()} == VIEWS
        for name in VIEWS:
            assert connection.execute(f"SELECT * FROM {name}").fetchall() == []
        for name, (_, schema) in CURRENT_VIEWS.items():
            assert connection.table(name).columns == ["recipe", *schema.names]
        for name, schema in HISTORY_VIEWS.items():
            assert connection.table(name).columns == [*schema.names, "current"]


def test_views_cover_every_recipe_and_are_replaced_while_a_reader_is_connected(home: Home):
    for recipe, texts in (("one", 3), ("two", 4)):
        folder = home.root / recipe / "corpus"
        folder.mkdir(parents=True)
        write_table(folder / "funnel.parquet", FUNNEL, [{"source": "s", "rule": "kept", "texts": texts}])
        path = refresh_views(home)
        if recipe == "one":
            reader = duckdb.connect(str(path), read_only=True)
    assert reader.execute("SELECT recipe, texts FROM funnel").fetchall() == [("one", 3)]
    reader.close()
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT recipe, texts FROM funnel ORDER BY 1").fetchall() == [("one", 3), ("two", 4)]


def test_statistics_of_earlier_snapshots_stay_and_the_current_one_is_marked(home: Home):
    for key in ("aaaa", "bbbb"):
        folder = home.artefacts / "vector_stats" / f"stats_{key}"
        folder.mkdir(parents=True)
        row = dict.fromkeys(VECTOR_STATS.names) | {"recipe": "tiny", "snapshot": key, "rows": 5}
        write_table(folder / "vector_stats.parquet", VECTOR_STATS, [row])
    (home.artefacts / "concatenated_vectors" / "bbbb").mkdir(parents=True)
    (home.root / "tiny").mkdir()
    (home.root / "tiny" / "concatenated_vectors").symlink_to("../artefacts/concatenated_vectors/bbbb")
    with duckdb.connect(str(refresh_views(home)), read_only=True) as connection:
        rows = connection.execute("SELECT snapshot, current FROM vector_stats ORDER BY ALL").fetchall()
    assert rows == [("aaaa", False), ("bbbb", True)]


@pytest.mark.parametrize("succeeded", [True, False])
def test_runs_are_recorded_line_by_line(home: Home, succeeded: bool):
    row = {"run_id": "r1", "recipe": "tiny", "asset": "corpus", "started_at": "2026-01-02 03:04:05.5", "seconds": 2.5}
    for asset in ("corpus", "stage_1"):
        record_run(home, "r1", {**row, "asset": asset, "succeeded": succeeded})
    with duckdb.connect(str(refresh_views(home)), read_only=True) as connection:
        found = connection.execute("SELECT asset, succeeded, year(started_at), seconds FROM runs ORDER BY 1").fetchall()
        assert connection.table("runs").columns == RUNS.names
    assert found == [("corpus", succeeded, 2026, 2.5), ("stage_1", succeeded, 2026, 2.5)]
