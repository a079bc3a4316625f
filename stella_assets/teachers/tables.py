"""The tables that the teacher steps write, and the names of their tables in the vector store."""

from __future__ import annotations

import pyarrow as pa

from stella_assets.core.tables import declare
from stella_assets.storage.tables import FLAG, INT, REAL, TEXT, LineTable, ManifestTable, Table

VECTORS_ASSET = "teacher_vectors"
SNAPSHOTS_ASSET = "concatenated_vectors"
STATISTICS_ASSET = "vector_stats"
PAIR_SCORES_ASSET = "pair_scores"
VECTORS = f"{VECTORS_ASSET}."
"""Begins the names of the tables in the vector store that hold a teacher's vectors; the fingerprint follows."""
STATES = "pooled_states."
"""Begins the names of the tables of pooled states of evaluated texts; they are computed again when needed."""
SCORES = "pair_scores."
"""Begins the names of the tables of scores of pairs; the fingerprint of the scorer follows."""
SNAPSHOT = f".{SNAPSHOTS_ASSET}"
"""Ends the names of the tables of snapshots; the recipe's name comes first."""


def teacher_asset(name: str) -> str:
    """Name of the asset of a teacher's vectors."""
    return f"{VECTORS_ASSET}/{name}"


def teacher_tables(names: list[str]) -> list[str]:
    """Those tables of the vector store that hold a teacher's vectors."""
    return [name for name in names if name.startswith(VECTORS)]


def snapshot_tables(names: list[str]) -> list[str]:
    """Those tables of the vector store that hold a recipe's snapshots."""
    return [name for name in names if name.endswith(SNAPSHOT)]


MINED_NEGATIVES = declare(
    Table(
        name="mined_negatives",
        assets="mined_negatives",
        file="mined_negatives.parquet",
        schema=pa.schema({"query": TEXT, "negative": TEXT, "rank": INT, "cosine": REAL, "split": TEXT}),
    )
)
PAIR_SCORES = declare(
    Table(
        name="pair_scores",
        assets=f"{PAIR_SCORES_ASSET}/*",
        file="pair_scores.parquet",
        schema=pa.schema(
            {
                "scorer": TEXT, "query": TEXT, "document": TEXT, "score": REAL, "split": TEXT, "origin": TEXT,
                "rank": INT,
            }
        ),
    )
)  # fmt: skip
SUSPECTS = declare(
    Table(
        name="suspects",
        assets="contamination_suspects",
        file="suspects.parquet",
        schema=pa.schema(
            {
                "id": TEXT, "source": TEXT, "evaluation": TEXT, "task": TEXT, "split": TEXT, "role": TEXT,
                "cosine": REAL, "excerpt": TEXT, "evaluation_excerpt": TEXT,
            }
        ),
    )
)  # fmt: skip
TEACHERS = declare(
    Table(
        name="teachers",
        assets=f"{VECTORS_ASSET}/*",
        file="teachers.parquet",
        schema=pa.schema(
            {
                "teacher": TEXT, "role": TEXT, "fingerprint": TEXT, "kind": TEXT, "model": TEXT, "revision": TEXT,
                "weights": TEXT, "prompt": TEXT, "pooling": TEXT, "dense_folder": TEXT, "max_length": TEXT,
                "dim": INT, "dtype": TEXT, "engine": TEXT, "normalised": TEXT, "licence": TEXT, "texts": INT,
            }
        ),
    )
)  # fmt: skip


def _statistics(name: str, schema: pa.Schema) -> Table:
    """A table of figures of every snapshot that was ever made, marked where it is the current one."""
    return declare(Table(name, STATISTICS_ASSET, f"{name}.parquet", schema, history_input=SNAPSHOTS_ASSET))


VECTOR_STATS = _statistics(
    "vector_stats",
    pa.schema(
        {
            "recipe": TEXT, "snapshot": TEXT, "teacher": TEXT, "kind": TEXT, "source": TEXT, "rows": INT, "dim": INT,
            "norm_mean": REAL, "norm_std": REAL, "nan_rows": INT, "zero_rows": INT, "mean_cosine": REAL,
            "std_cosine": REAL, "effective_rank": REAL, "sampled_rows": INT, "centred": FLAG,
        }
    ),
)  # fmt: skip
DIMENSION_STATS = _statistics(
    "dimension_stats",
    pa.schema(
        {
            "recipe": TEXT, "snapshot": TEXT, "teacher": TEXT, "dimension": INT, "mean": REAL, "std": REAL,
            "min": REAL, "max": REAL,
        }
    ),
)  # fmt: skip
TEACHER_AGREEMENT = _statistics(
    "teacher_agreement",
    pa.schema(
        {
            "recipe": TEXT, "snapshot": TEXT, "a": TEXT, "b": TEXT, "linear_cka": REAL, "neighbour_overlap": REAL,
            "neighbours": INT, "sampled_rows": INT,
        }
    ),
)  # fmt: skip
SIMILARITIES = _statistics(
    "similarities",
    pa.schema({"recipe": TEXT, "snapshot": TEXT, "teacher": TEXT, "low": REAL, "high": REAL, "pairs": INT}),
)
DRIFT = _statistics(
    "drift",
    pa.schema(
        {
            "recipe": TEXT, "snapshot": TEXT, "previous": TEXT, "teacher": TEXT, "rows": INT, "rows_added": INT,
            "rows_removed": INT, "same_fingerprint": FLAG, "mean_shift": REAL, "linear_cka": REAL,
            "changed_neighbours": REAL, "sampled_rows": INT,
        }
    ),
)  # fmt: skip
COSTS = declare(
    LineTable(
        name="api_costs",
        folder="api_costs",
        schema=pa.schema(
            {
                "recipe": TEXT, "teacher": TEXT, "model": TEXT, "service": TEXT, "purpose": TEXT, "requests": INT,
                "texts": INT, "tokens": INT, "dollars": REAL, "started_at": TEXT, "ended_at": TEXT,
            }
        ),
    )
)  # fmt: skip
SNAPSHOTS = declare(
    ManifestTable(
        name="snapshots",
        assets=SNAPSHOTS_ASSET,
        mark_current=True,
        columns={
            "recipe": "run_info->>'$.recipe'",
            "snapshot": "key",
            "lance_table": "metrics->>'$.table'",
            "lance_version": "CAST(metrics->>'$.lance_version' AS BIGINT)",
            "rows": "CAST(metrics->>'$.rows' AS BIGINT)",
            "rows_written": "CAST(metrics->>'$.rows_written' AS BIGINT)",
            "dim": "CAST(metrics->>'$.dim' AS BIGINT)",
            "teachers": "CAST(identity->'$.settings.teachers' AS VARCHAR[])",
            "weights": "CAST(identity->'$.settings.weights' AS DOUBLE[])",
            "mean_cosines": "CAST(metrics->'$.mean_cosines' AS DOUBLE[])",
            "centred": "CAST(metrics->'$.centred' AS VARCHAR[])",
            "corpus_digest": "identity->'$.inputs'->>'corpus'",
            "digest": "digest",
            "made_at": "CAST(run_info->>'$.made_at' AS TIMESTAMP)",
            "seconds": "CAST(run_info->>'$.seconds' AS DOUBLE)",
        },
    )
)
