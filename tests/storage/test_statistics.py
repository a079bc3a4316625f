"""DuckDB views over the Parquet files of current artefacts."""

import duckdb

from storage.home import Home
from storage.statistics import FUNNEL, VIEWS, refresh_views, write_table


def test_views_are_empty_and_typed_before_anything_was_made(home: Home):
    with duckdb.connect(str(refresh_views(home)), read_only=True) as connection:
        for name, (_, schema) in VIEWS.items():
            relation = connection.execute(f"SELECT * FROM {name}")
            assert [column[0] for column in relation.description] == ["recipe", *schema.names]
            assert relation.fetchall() == []
        assert connection.execute("SELECT count(*) FROM artefacts").fetchone() == (0,)


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
