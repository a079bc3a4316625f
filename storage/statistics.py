"""Statistics as Parquet beside each artefact, and a DuckDB database of views over the current ones.

A DuckDB file has one writer, so steps write Parquet only. The database holds views alone and is replaced in one
rename: it can be queried while a run is in progress.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.artefacts import MANIFEST, finished
from storage.workspace import Workspace

ROW_GROUP = 65_536
TEXT, INT, REAL = pa.string(), pa.int64(), pa.float64()

TEXTS = pa.schema(
    dict.fromkeys(
        ("id", "text", "source", "section", "role", "split", "licence", "origin", "augmentation", "parent"), TEXT
    ).items()
)
DROPPED = pa.schema(
    {
        "id": TEXT, "source": TEXT, "section": TEXT, "role": TEXT, "rule": TEXT, "value": REAL, "detail": TEXT,
        "excerpt": TEXT, "origin": TEXT,
    }.items()
)  # fmt: skip
CONTAMINATION = pa.schema(
    {
        "id": TEXT, "source": TEXT, "evaluation": TEXT, "task": TEXT, "split": TEXT, "role": TEXT, "rule": TEXT,
        "value": REAL, "verdict": TEXT, "excerpt": TEXT, "evaluation_excerpt": TEXT,
    }.items()
)  # fmt: skip
SUSPECTS = pa.schema(
    {
        "id": TEXT, "source": TEXT, "evaluation": TEXT, "task": TEXT, "split": TEXT, "role": TEXT, "cosine": REAL,
        "excerpt": TEXT, "evaluation_excerpt": TEXT,
    }.items()
)  # fmt: skip
FUNNEL = pa.schema({"source": TEXT, "rule": TEXT, "texts": INT}.items())
TEACHERS = pa.schema(
    {
        "teacher": TEXT, "role": TEXT, "fingerprint": TEXT, "kind": TEXT, "model": TEXT, "revision": TEXT,
        "weights": TEXT, "prompt": TEXT, "pooling": TEXT, "dense_folder": TEXT, "max_length": TEXT, "dim": INT,
        "dtype": TEXT, "engine": TEXT, "normalised": TEXT, "licence": TEXT, "texts": INT,
    }.items()
)  # fmt: skip
VECTOR_STATS = pa.schema(
    {
        "recipe": TEXT, "snapshot": TEXT, "teacher": TEXT, "kind": TEXT, "source": TEXT, "rows": INT, "dim": INT,
        "norm_mean": REAL, "norm_std": REAL, "nan_rows": INT, "zero_rows": INT, "mean_cosine": REAL, "std_cosine": REAL,
        "effective_rank": REAL, "sampled_rows": INT,
    }.items()
)  # fmt: skip
DIMENSION_STATS = pa.schema(
    {
        "recipe": TEXT, "snapshot": TEXT, "teacher": TEXT, "dimension": INT, "mean": REAL, "std": REAL, "min": REAL,
        "max": REAL,
    }.items()
)  # fmt: skip
TEACHER_AGREEMENT = pa.schema(
    {
        "recipe": TEXT, "snapshot": TEXT, "a": TEXT, "b": TEXT, "linear_cka": REAL, "neighbour_overlap": REAL,
        "neighbours": INT, "sampled_rows": INT,
    }.items()
)  # fmt: skip
SIMILARITIES = pa.schema(
    {"recipe": TEXT, "snapshot": TEXT, "teacher": TEXT, "low": REAL, "high": REAL, "pairs": INT}.items()
)
DRIFT = pa.schema(
    {
        "recipe": TEXT, "snapshot": TEXT, "previous": TEXT, "teacher": TEXT, "rows": INT, "rows_added": INT,
        "rows_removed": INT, "same_fingerprint": pa.bool_(), "mean_shift": REAL, "linear_cka": REAL,
        "changed_neighbours": REAL, "sampled_rows": INT,
    }.items()
)  # fmt: skip
RUNS = pa.schema(
    {
        "run_id": TEXT, "recipe": TEXT, "asset": TEXT, "started_at": pa.timestamp("us"), "seconds": REAL,
        "succeeded": pa.bool_(), "reused": pa.bool_(), "digest": TEXT, "peak_memory_mib": INT, "error": TEXT,
    }.items()
)  # fmt: skip
REDISTILLATIONS = pa.schema(
    {
        "started_at": TEXT, "recipe": TEXT, "verdict": TEXT, "why": TEXT, "new_texts": INT, "embedded": INT,
        "score": REAL, "release": TEXT, "seconds": REAL,
    }.items()
)  # fmt: skip
TRAINING_LOG = pa.schema(
    {"stage": TEXT, "step": INT, "split": TEXT, "term": TEXT, "value": REAL, "learning_rate": REAL}.items()
)
TASKS = pa.schema(dict.fromkeys(("task", "type", "metric", "data", "revision", "benchmarks"), TEXT).items())
SCORES = pa.schema(
    {
        "model": TEXT, "dimension": INT, "task": TEXT, "type": TEXT, "metric": TEXT, "score": REAL, "data": TEXT,
        "revision": TEXT, "loader": TEXT, "weights": TEXT, "dtype": TEXT, "max_length": INT, "query_prompt": TEXT,
        "document_prompt": TEXT, "mteb": TEXT,
    }.items()
)  # fmt: skip
MODEL_SAMPLES = pa.schema(
    {
        "model": TEXT, "dimension": INT, "task": TEXT, "part": TEXT, "statistic": TEXT, "subset": TEXT, "split": TEXT,
        "sample": TEXT, "value": REAL, "gold": REAL,
    }.items()
)  # fmt: skip
VERDICTS = pa.schema(
    {
        "requirement": TEXT, "subject": TEXT, "limit": REAL, "found": REAL, "low": REAL, "high": REAL,
        "passed": pa.bool_(), "sure": pa.bool_(),
    }.items()
)  # fmt: skip
RELEASED_VECTORS = pa.schema(
    {"loader": TEXT, "dimension": INT, "texts": INT, "least_cosine": REAL, "mean_cosine": REAL}.items()
)
SAMPLES = pa.schema({"subset": TEXT, "split": TEXT, "sample": TEXT, "value": REAL, "gold": REAL}.items())
STUDY = pa.schema(
    {
        "variant": TEXT, "seed": INT, "stages": INT, "dimension": INT, "task": TEXT, "type": TEXT, "score": REAL,
        "dev_loss": REAL, "dev_neighbours": REAL, "digest": TEXT,
    }.items()
)  # fmt: skip

CURRENT_VIEWS: dict[str, tuple[str, pa.Schema]] = {
    "texts": ("corpus/corpus.parquet", TEXTS),
    "funnel": ("corpus/funnel.parquet", FUNNEL),
    "dropped": ("*/dropped.parquet", DROPPED),
    "contamination": ("contamination/matches.parquet", CONTAMINATION),
    "suspects": ("contamination_suspects/suspects.parquet", SUSPECTS),
    "teachers": ("teacher_vectors/*/teachers.parquet", TEACHERS),
    "training_log": ("stage_*/training_log.parquet", TRAINING_LOG),
    "evaluation_tasks": ("evaluation_tasks/tasks.parquet", TASKS),
    "scores": ("mteb/*/scores.parquet", SCORES),
    "samples": ("mteb/*/samples.parquet", MODEL_SAMPLES),
    "gate": ("release_gate/verdicts.parquet", VERDICTS),
    "study": ("study/study.parquet", STUDY),
}
"""Views over what each recipe has now: its files by link, with the recipe's name in front."""

HISTORY_VIEWS: dict[str, pa.Schema] = {
    "vector_stats": VECTOR_STATS,
    "dimension_stats": DIMENSION_STATS,
    "teacher_agreement": TEACHER_AGREEMENT,
    "similarities": SIMILARITIES,
    "drift": DRIFT,
}
"""Views over the statistics of every snapshot that was ever made; `current` marks those that a recipe has now."""

SNAPSHOTS_SQL = """
    SELECT run_info->>'$.recipe' AS recipe, key AS snapshot, metrics->>'$.table' AS lance_table,
           CAST(metrics->>'$.lance_version' AS BIGINT) AS lance_version, CAST(metrics->>'$.rows' AS BIGINT) AS rows,
           CAST(metrics->>'$.rows_written' AS BIGINT) AS rows_written, CAST(metrics->>'$.dim' AS BIGINT) AS dim,
           CAST(identity->'$.settings.teachers' AS VARCHAR[]) AS teachers,
           CAST(identity->'$.settings.weights' AS DOUBLE[]) AS weights,
           identity->'$.inputs'->>'corpus' AS corpus_digest, digest,
           CAST(run_info->>'$.made_at' AS TIMESTAMP) AS made_at, CAST(run_info->>'$.seconds' AS DOUBLE) AS seconds,
           key IN ({current}) AS current
    FROM read_json({files}, columns={columns}, format='auto')
"""
ARTEFACTS_SQL = """
    SELECT identity->>'$.asset' AS asset, key, digest, run_info->>'$.recipe' AS recipe,
           CAST(run_info->>'$.made_at' AS TIMESTAMP) AS made_at, CAST(run_info->>'$.seconds' AS DOUBLE) AS seconds,
           CAST(run_info->>'$.peak_memory_mib' AS BIGINT) AS peak_memory_mib, metrics
    FROM read_json({files}, columns={columns}, format='auto')
"""
MANIFEST_COLUMNS = "{identity: 'JSON', key: 'VARCHAR', digest: 'VARCHAR', run_info: 'JSON', metrics: 'JSON'}"
NO_MANIFESTS = (
    "(SELECT NULL::JSON AS identity, NULL::VARCHAR AS key, NULL::VARCHAR AS digest, NULL::JSON AS run_info, "
    "NULL::JSON AS metrics) WHERE false"
)
SQL_TYPES = {TEXT: "VARCHAR", INT: "BIGINT", REAL: "DOUBLE", pa.bool_(): "BOOLEAN", pa.timestamp("us"): "TIMESTAMP"}


def write_table(path: Path, schema: pa.Schema, rows: Iterable[Mapping[str, Any]] | pa.Table) -> None:
    """Write rows as a Parquet file of exactly this schema, in row groups that can be read one at a time."""
    table = rows.cast(schema) if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=schema)
    pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP)


def record_run(workspace: Workspace, run_id: str, row: Mapping[str, Any]) -> None:
    """Add what a run did for one asset to the run's record; a line is written whole or not at all."""
    workspace.runs.mkdir(parents=True, exist_ok=True)
    line = json.dumps({name: row.get(name) for name in RUNS.names}, default=str) + "\n"
    with (workspace.runs / f"{run_id}.jsonl").open("ab", buffering=0) as file:
        file.write(line.encode())


def refresh_views(workspace: Workspace) -> Path:
    """Write the database of views anew, for every recipe of the workspace folder; docs/sql.md describes them.

    A view over files that do not exist yet is empty and has its columns.
    """
    import duckdb

    workspace.root.mkdir(parents=True, exist_ok=True)
    fresh = workspace.root / f".statistics.{os.getpid()}.duckdb"
    fresh.unlink(missing_ok=True)
    with duckdb.connect(str(fresh)) as connection:
        for name, select in view_definitions(workspace).items():
            connection.execute(f"CREATE VIEW {name} AS {select}")
    fresh.replace(workspace.statistics)
    return workspace.statistics


def view_definitions(workspace: Workspace) -> dict[str, str]:
    """The views by name, each as the SELECT that it stands for."""
    workspace = Workspace(workspace.root.absolute(), workspace.vectors_uri)
    links = workspace.root.glob("*/concatenated_vectors")
    current = ", ".join(_quote(path.resolve().name) for path in links) or "''"
    return {
        **{name: _select_current(workspace, pattern, schema) for name, (pattern, schema) in CURRENT_VIEWS.items()},
        **{name: _select_history(workspace, name, schema) for name, schema in HISTORY_VIEWS.items()},
        "snapshots": _select_manifests(workspace, SNAPSHOTS_SQL, "concatenated_vectors", current),
        "artefacts": _select_manifests(workspace, ARTEFACTS_SQL, "**", current),
        "runs": _select_lines(workspace.runs, RUNS),
        "redistillations": _select_lines(workspace.redistillations, REDISTILLATIONS),
    }


def _select_current(workspace: Workspace, pattern: str, schema: pa.Schema) -> str:
    files = sorted(
        path for path in workspace.root.glob(f"*/{pattern}") if path.relative_to(workspace.root).parts[0] != "artefacts"
    )
    selects = [
        f"SELECT {_quote(path.relative_to(workspace.root).parts[0])} AS recipe, * FROM read_parquet({_quote_path(path)})"
        for path in files
        if pq.read_schema(path).names == schema.names
    ]
    return " UNION ALL BY NAME ".join(selects) or f"SELECT NULL::VARCHAR AS recipe, {_nulls(schema)} WHERE false"


def _select_history(workspace: Workspace, name: str, schema: pa.Schema) -> str:
    """Statistics of every snapshot, once each: those that a recipe links to, else the newest."""
    linked = {path.resolve() for path in workspace.root.glob("*/vector_stats")}
    manifests = [folder / MANIFEST for folder in finished(workspace, "vector_stats")]
    of_snapshot: dict[str, Path] = {}
    for path in sorted(manifests, key=lambda path: (path.parent.resolve() in linked, path.stat().st_mtime)):
        inputs = json.loads(path.read_text(encoding="utf-8"))["identity"]["inputs"]
        file = path.with_name(f"{name}.parquet")
        if file.is_file() and pq.read_schema(file).names == schema.names:  # not those of an older version
            of_snapshot[inputs["concatenated_vectors"]] = file
    columns = ", ".join(f'"{field}"' for field in schema.names)
    selects = [
        f"SELECT {columns}, {path.parent.resolve() in linked} AS current FROM read_parquet({_quote_path(path)})"
        for path in sorted(of_snapshot.values())
    ]
    return " UNION ALL ".join(selects) or f"SELECT {_nulls(schema)}, NULL::BOOLEAN AS current WHERE false"


def _select_manifests(workspace: Workspace, select: str, assets: str, current: str) -> str:
    """A SELECT over manifests; one that matches no row stands for those that do not exist yet."""
    files = [folder / MANIFEST for folder in finished(workspace, assets)]
    if not files:
        return f"{select.partition('read_json')[0].format(current=current)} {NO_MANIFESTS}"
    listed = "[" + ", ".join(_quote_path(path) for path in files) + "]"
    return select.format(files=listed, columns=MANIFEST_COLUMNS, current=current)


def _select_lines(folder: Path, schema: pa.Schema) -> str:
    """A SELECT over files of JSON Lines."""
    if not any(folder.glob("*.jsonl")):
        return f"SELECT {_nulls(schema)} WHERE false"
    columns = ", ".join(f"{field.name}: '{SQL_TYPES[field.type]}'" for field in schema)
    files = ", ".join(_quote_path(path) for path in sorted(folder.glob("*.jsonl")))
    return f"SELECT * FROM read_json([{files}], columns={{{columns}}}, format='newline_delimited')"


def _nulls(schema: pa.Schema) -> str:
    return ", ".join(f'NULL::{SQL_TYPES[field.type]} AS "{field.name}"' for field in schema)


def _quote_path(path: Path) -> str:
    """A file's path in SQL; DuckDB reads paths as patterns, and this one matches the file alone."""
    return _quote(re.sub(r"([*?\[])", r"[\1]", str(path)))


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
