"""Statistics as Parquet beside each artefact, and a DuckDB database of views over the current ones.

A DuckDB file has one writer, so steps write Parquet only. The database holds views alone and is replaced in one
rename: it can be queried while a run is in progress.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.home import Home

TEXT, INT, REAL = pa.string(), pa.int64(), pa.float64()

TEXTS = pa.schema(
    dict.fromkeys(("id", "text", "source", "section", "role", "split", "licence", "origin"), TEXT).items()
)
FUNNEL = pa.schema({"source": TEXT, "rule": TEXT, "texts": INT}.items())
VECTOR_STATS = pa.schema(
    {
        "vectors": TEXT, "kind": TEXT, "rows": INT, "dim": INT, "norm_mean": REAL, "norm_std": REAL, "nan_rows": INT,
        "zero_rows": INT, "mean_cosine": REAL, "std_cosine": REAL, "effective_rank": REAL, "sampled_rows": INT,
    }.items()
)  # fmt: skip
TEACHER_AGREEMENT = pa.schema(
    {
        "a": TEXT,
        "b": TEXT,
        "linear_cka": REAL,
        "neighbour_overlap": REAL,
        "neighbours": INT,
        "sampled_rows": INT,
    }.items()
)
TRAINING_LOG = pa.schema(
    {"stage": TEXT, "step": INT, "split": TEXT, "term": TEXT, "value": REAL, "learning_rate": REAL}.items()
)
SCORES = pa.schema({"model": TEXT, "dimension": INT, "task": TEXT, "type": TEXT, "metric": TEXT, "score": REAL}.items())

VIEWS: dict[str, tuple[str, pa.Schema]] = {
    "texts": ("corpus/corpus.parquet", TEXTS),
    "funnel": ("corpus/funnel.parquet", FUNNEL),
    "vector_stats": ("vector_stats/vector_stats.parquet", VECTOR_STATS),
    "teacher_agreement": ("vector_stats/teacher_agreement.parquet", TEACHER_AGREEMENT),
    "training_log": ("stage_*/training_log.parquet", TRAINING_LOG),
    "scores": ("mteb/*/scores.parquet", SCORES),
}
SQL_TYPES = {TEXT: "VARCHAR", INT: "BIGINT", REAL: "DOUBLE"}


def write_table(path: Path, schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as a Parquet file of exactly this schema."""
    table = pa.Table.from_pylist(list(rows), schema=schema)
    pq.write_table(table, path, compression="zstd")


def refresh_views(home: Home) -> Path:
    """Write the database of views anew: `texts`, `funnel`, `vector_stats`, `scores` and so on, each with its `recipe`.

    A view over files that do not exist yet is empty and has its columns.
    """
    import duckdb

    home.root.mkdir(parents=True, exist_ok=True)
    fresh = home.root / f".statistics.{os.getpid()}.duckdb"
    fresh.unlink(missing_ok=True)
    with duckdb.connect(str(fresh)) as connection:
        for name, (pattern, schema) in VIEWS.items():
            connection.execute(f"CREATE VIEW {name} AS {_select(home, pattern, schema)}")
        connection.execute(f"CREATE VIEW artefacts AS {_select_artefacts(home)}")
    fresh.replace(home.statistics)
    return home.statistics


def _select(home: Home, pattern: str, schema: pa.Schema) -> str:
    files = sorted(
        path for path in home.root.glob(f"*/{pattern}") if path.relative_to(home.root).parts[0] != "artefacts"
    )
    if not files:
        columns = ", ".join(f"NULL::{SQL_TYPES[field.type]} AS {field.name}" for field in schema)
        return f"SELECT NULL::VARCHAR AS recipe, {columns} WHERE false"
    selects = [
        f"SELECT {_quote(path.relative_to(home.root).parts[0])} AS recipe, * FROM read_parquet({_quote(str(path))})"
        for path in files
    ]
    return " UNION ALL BY NAME ".join(selects)


def _select_artefacts(home: Home) -> str:
    pattern = home.artefacts / "**" / "manifest.json"
    if not any(home.artefacts.glob("**/manifest.json")):
        return (
            "SELECT NULL::VARCHAR AS asset, NULL::VARCHAR AS key, NULL::VARCHAR AS digest, NULL::VARCHAR AS recipe, "
            "NULL::TIMESTAMP AS made_at, NULL::DOUBLE AS seconds, NULL::BIGINT AS peak_memory_mib, NULL::JSON AS facts "
            "WHERE false"
        )
    columns = "{identity: 'JSON', key: 'VARCHAR', digest: 'VARCHAR', about: 'JSON', facts: 'JSON'}"
    return (
        "SELECT identity->>'$.asset' AS asset, key, digest, about->>'$.recipe' AS recipe, "
        "CAST(about->>'$.made_at' AS TIMESTAMP) AS made_at, CAST(about->>'$.seconds' AS DOUBLE) AS seconds, "
        "CAST(about->>'$.peak_memory_mib' AS BIGINT) AS peak_memory_mib, facts "
        f"FROM read_json({_quote(str(pattern))}, columns={columns}, format='auto')"
    )


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
