"""`stella sql` reads the views and nothing else, and prints every value in every format."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from stella_assets.core.errors import UserError
from stella_assets.core.tables import record_run
from stella_assets.corpus.tables import FUNNEL
from stella_assets.pipelines.cli.app import app
from stella_assets.storage.workspace import Workspace


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with a view of Parquet files, reached over a link, and one of JSON lines."""
    workspace = Workspace(tmp_path / "a home of Zoë's")
    folder = workspace.root / "artefacts" / "corpus" / "abc"
    folder.mkdir(parents=True)
    FUNNEL.write(folder, [{"source": "docs", "rule": "kept", "texts": 7}])
    (workspace.root / "tiny").mkdir()
    (workspace.root / "tiny" / "corpus").symlink_to("../artefacts/corpus/abc")
    record_run(workspace, "r1", {"run_id": "r1", "started_at": "2026-01-02 03:04:05"})
    (tmp_path / "secret.csv").write_text("a,b\nsecret,2\n")
    monkeypatch.setenv("STELLA_HOME", str(workspace.root))
    monkeypatch.chdir(tmp_path)
    return workspace.root


def ask(query: str, *options: str) -> Result:
    return CliRunner().invoke(app, ["sql", query, *options])


def as_json(query: str, *options: str) -> Any:
    done = ask(query, "--format", "json", *options)
    assert done.exit_code == 0, done.exception
    return json.loads(done.stdout, parse_constant=pytest.fail)


READING = {
    "SELECT": ("SELECT source, texts FROM funnel", [{"source": "docs", "texts": 7}]),
    "FROM": ("FROM funnel SELECT rule", [{"rule": "kept"}]),
    "JSON lines": ("SELECT run_id FROM runs", [{"run_id": "r1"}]),
    "WITH": ("WITH t AS (SELECT texts FROM funnel) SELECT sum(texts) AS n FROM t", [{"n": 7}]),
    "VALUES": ("VALUES (1)", [{"col0": 1}]),
    "a word in a string": ("SELECT 'COPY x TO y' AS said", [{"said": "COPY x TO y"}]),
    "two statements": ("SELECT 1 AS a; SELECT 2 AS b;", [{"b": 2}]),
    "a comment": ("SELECT 1 AS a -- and no more", [{"a": 1}]),
}


@pytest.mark.parametrize("case", READING)
def test_a_query_reads_the_views(case: str, home: Path):
    query, expected = READING[case]
    assert as_json(query) == expected


@pytest.mark.parametrize("query", ["SHOW TABLES", "DESCRIBE funnel", "SUMMARIZE funnel"])
def test_views_are_described(query: str, home: Path):
    assert as_json(query)


PARQUET = "artefacts/corpus/abc/funnel.parquet"
OUTSIDE = {
    "a reader of CSV": "SELECT * FROM read_csv('{here}/secret.csv')",
    "a reader of text": "SELECT * FROM read_text('{here}/secret.csv')",
    "a reader of bytes": "SELECT * FROM read_blob('{here}/secret.csv')",
    "a guess of a format": "SELECT * FROM sniff_csv('{here}/secret.csv')",
    "a file in place of a table": "FROM '{here}/secret.csv'",
    "a description of a file": "DESCRIBE FROM '{here}/secret.csv'",
    "a relative path": "FROM 'secret.csv'",
    "a path by way of a view's folder": "FROM read_csv('{home}/tiny/corpus/../../../secret.csv')",
    "a list of files": "SELECT * FROM glob('{here}/*')",
    "an address": "FROM read_csv('https://127.0.0.1:1/a.csv')",
    "a variable of the program": "FROM files",
    "COPY TO": "COPY (SELECT 1) TO '{here}/new.csv'",
    "COPY TO over a view's file": "COPY (SELECT 1 AS a) TO '{home}/"
    + PARQUET
    + "' (FORMAT parquet, USE_TMP_FILE false)",
    "COPY in WITH": "WITH t AS (COPY (SELECT 1 AS a) TO '{home}/" + PARQUET + "' (FORMAT parquet, USE_TMP_FILE false)) "
    "FROM t",
    "COPY in EXPLAIN": "EXPLAIN ANALYZE COPY (SELECT 1 AS a) TO '{home}/" + PARQUET + "' (USE_TMP_FILE false)",
    "COPY in PREPARE": "PREPARE p AS COPY (SELECT 1 AS a) TO '{home}/" + PARQUET + "' (USE_TMP_FILE false); EXECUTE p",
    "COPY of a PIVOT": "COPY (PIVOT funnel ON rule USING sum(texts)) TO '{home}/" + PARQUET + "' (USE_TMP_FILE false)",
    "COPY after a query": "SELECT 1; COPY (SELECT 1) TO '{here}/new.csv'",
    "COPY FROM": "COPY funnel FROM '{here}/secret.csv'",
    "EXPORT": "EXPORT DATABASE '{here}/new'",
    "IMPORT": "IMPORT DATABASE '{here}'",
    "ATTACH": "ATTACH '{here}/new.db'",
    "ATTACH of an address": "ATTACH 'https://127.0.0.1:1/a.db'",
    "CREATE TABLE": "CREATE TABLE t AS FROM funnel",
    "CREATE SECRET": "CREATE PERSISTENT SECRET s (TYPE s3)",
    "DROP": "DROP VIEW funnel",
    "INSTALL": "INSTALL httpfs",
    "LOAD": "LOAD '{here}/new.duckdb_extension'",
    "SET": "SET enable_external_access = true",
    "SET of the lock": "SET lock_configuration = false",
    "PRAGMA": "PRAGMA enable_profiling",
    "CALL": "CALL pragma_version()",
    "a command of the shell": ".read {here}/secret.csv",
    "nothing": " ; -- ",
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("options", [[], ["--vectors", "tiny"]], ids=["views", "vectors"])
@pytest.mark.parametrize("case", OUTSIDE)
def test_nothing_outside_the_views_is_read_or_written(case: str, options: list[str], home: Path, tmp_path: Path):
    if options:
        snapshot(home)
    as_json("SELECT 1")  # writes the views, which is no part of the query
    before = contents(tmp_path)
    done = ask(OUTSIDE[case].format(here=tmp_path, home=home), *options)
    assert isinstance(done.exception, UserError)
    assert done.exception.remedy
    assert done.stdout == ""
    assert contents(tmp_path) == before


def snapshot(home: Path) -> None:
    from tests.snapshots import Corpus, Teacher, write

    write(Workspace(home), "tiny", Corpus(range(5)), Teacher("small", 3))


def test_vectors_are_read_on_the_restricted_connection(home: Path):
    snapshot(home)
    query = "SELECT count(*) AS texts, max(len(vector_small)) AS dim FROM vectors, funnel"
    assert as_json(query, "--vectors", "tiny") == [{"texts": 5, "dim": 3}]


def test_what_is_refused_names_the_option_and_the_option_allows_it(home: Path, tmp_path: Path):
    query = f"COPY (FROM '{tmp_path}/secret.csv') TO '{tmp_path}/new.csv'"
    refused = ask(query)
    assert isinstance(refused.exception, UserError)
    assert "--allow-files" in str(refused.exception)
    assert ask(query, "--allow-files").exit_code == 0
    assert (tmp_path / "new.csv").read_text() == "a,b\nsecret,2\n"


@pytest.mark.parametrize("options", [[], ["--allow-files"]])
@pytest.mark.parametrize(
    ("query", "said"),
    [("", "no statement"), (" ; -- ", "no statement"), ("SELECT '\udcff'", "not UTF-8")],
    ids=["empty", "a comment", "bytes"],
)
def test_what_is_not_a_query_is_refused_without_a_word_about_files(
    query: str, said: str, options: list[str], home: Path
):
    refused = ask(query, *options).exception
    assert isinstance(refused, UserError)
    assert said in str(refused)
    assert "--allow-files" not in str(refused)


def test_a_pivot_with_its_values_is_a_query(home: Path):
    assert as_json("PIVOT funnel ON rule IN ('kept') USING sum(texts)")[0]["kept"] == 7
    refused = ask("PIVOT funnel ON rule USING sum(texts)")
    assert "PIVOT needs its values, e.g. PIVOT funnel ON rule IN ('kept')" in str(refused.exception)


@pytest.mark.parametrize(
    ("query", "line"),
    [("SELECT nope FROM funnel", "LINE 1: SELECT nope FROM"), ("SELECT 1,\n nope\nFROM funnel", "LINE 2:  nope\n")],
)
def test_a_mistake_is_shown_in_the_line_that_a_person_wrote(query: str, line: str, home: Path):
    said = str(ask(query).exception)
    assert line in said
    assert "EXPLAIN" not in said


def test_a_wrong_query_is_answered_with_the_views(home: Path):
    for query in ("SELECT * FROM funel", "SELECT CAST('x' AS INTEGER)", "SELEC 1"):
        done = ask(query)
        assert isinstance(done.exception, UserError)
        assert "artefacts, contamination, " in str(done.exception)


VALUES = """SELECT 'NaN'::DOUBLE AS nan, '-inf'::FLOAT AS infinite, 1.5::DOUBLE AS real,
    170141183460469231731687303715884105727 AS large,
    1.50::DECIMAL(9, 2) AS decimal, DATE '2026-01-02' AS day, TIMESTAMP '2026-01-02 03:04:05' AS time,
    DATE '290000-01-01' AS far, INTERVAL 2 DAY AS span, '\\x00\\xFF'::BLOB AS bytes, '101'::BIT AS bits,
    'c0ffee00-0000-0000-0000-000000000000'::UUID AS uuid, true AS flag, NULL AS nothing, 'a,"b"' AS text,
    {'x': 'NaN'::DOUBLE, 'day': DATE '2026-01-02'} AS struct, [1, NULL, 3] AS list, MAP {DATE '2026-01-02': 1} AS map,
    array_value(1.0::FLOAT, 'inf'::FLOAT) AS array"""
PLAIN: dict[str, Any] = {
    "nan": None, "infinite": None, "real": 1.5, "large": 170141183460469231731687303715884105727, "decimal": "1.50",
    "day": "2026-01-02", "time": "2026-01-02 03:04:05", "far": "290000-01-01", "span": "2 days, 0:00:00",
    "bytes": "00ff", "bits": "101", "uuid": "c0ffee00-0000-0000-0000-000000000000", "flag": True, "nothing": None,
    "text": 'a,"b"', "struct": {"x": None, "day": "2026-01-02"}, "list": [1, None, 3], "map": {"2026-01-02": 1},
    "array": [1.0, None],
}  # fmt: skip


def test_every_type_has_a_valid_form_in_json(home: Path):
    assert as_json(VALUES) == [PLAIN]


def test_every_type_has_one_cell_in_csv(home: Path):
    [row] = csv.DictReader(io.StringIO(ask(VALUES, "--format", "csv").stdout))
    cells = {name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in PLAIN.items()}
    assert row == {name: "" if value is None else str(value) for name, value in cells.items()}


def test_every_type_is_shown_in_a_table(home: Path):
    for name, shown in (
        ("large", str(2**127 - 1)),
        ("day", "2026-01-02"),
        ("far", "290000-01-01"),
        ("list", "[1, None, 3]"),
    ):
        assert shown in ask(f"SELECT {name} FROM ({VALUES})").stdout


def test_equal_names_of_columns_are_kept_apart(home: Path):
    query = "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a"
    assert as_json(query) == [{"a": 1, "a_2": 2, "a_1": 3, "a_3": 4}]
    assert ask(query, "--format", "csv").stdout.splitlines() == ["a,a_2,a_1,a_3", "1,2,3,4"]


def test_a_query_without_rows_has_its_header(home: Path):
    assert as_json("SELECT texts FROM funnel WHERE false") == []
    assert ask("SELECT texts FROM funnel WHERE false", "--format", "csv").stdout == "texts\n"
    assert "texts" in ask("SELECT texts FROM funnel WHERE false").stdout


def test_texts_with_markup_and_control_characters_are_data(home: Path):
    done = ask("SELECT '[/x] [bold]b[/] ' || chr(27) || '[31m' AS text")
    assert "[/x] [bold]b[/] \\x1b[31m" in done.stdout
    assert "\x1b" not in done.stdout
    query = "SELECT 'a' || chr(27) || chr(8238) AS text"
    assert as_json(query) == [{"text": "a\x1b\u202e"}]
    assert "\x1b" not in ask(query, "--format", "json").stdout
    # A program that reads a pipe gets what the store has.
    assert ask(query, "--format", "csv").stdout == "text\na\x1b\u202e\n"
