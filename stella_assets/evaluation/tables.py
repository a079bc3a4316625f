"""The tables that the evaluation steps write."""

from __future__ import annotations

import pyarrow as pa

from stella_assets.core.tables import declare
from stella_assets.storage.tables import INT, REAL, TEXT, Table

TASKS = declare(
    Table(
        name="evaluation_tasks",
        assets="evaluation_tasks",
        file="tasks.parquet",
        schema=pa.schema(
            {"task": TEXT, "type": TEXT, "metric": TEXT, "data": TEXT, "revision": TEXT, "benchmarks": TEXT}
        ),
    )
)
# `scores/*` and `retriever_scores/*`, and not `pair_scores/*`, which are of pairs of texts.
OF_MODELS = "[rs]*cores/*"
SCORES = declare(
    Table(
        name="scores",
        assets=OF_MODELS,
        file="scores.parquet",
        schema=pa.schema(
            {
                "model": TEXT, "dimension": INT, "task": TEXT, "type": TEXT, "metric": TEXT, "score": REAL,
                "data": TEXT, "revision": TEXT, "loader": TEXT, "weights": TEXT, "dtype": TEXT, "max_length": INT,
                "query_prompt": TEXT, "document_prompt": TEXT, "mteb": TEXT,
            }
        ),
    )
)  # fmt: skip
MODEL_SAMPLES = declare(
    Table(
        name="samples",
        assets=OF_MODELS,
        file="samples.parquet",
        schema=pa.schema(
            {
                "model": TEXT, "dimension": INT, "task": TEXT, "part": TEXT, "statistic": TEXT, "subset": TEXT,
                "split": TEXT, "sample": TEXT, "value": REAL, "gold": REAL,
            }
        ),
    )
)  # fmt: skip
SAMPLES = pa.schema({"subset": TEXT, "split": TEXT, "sample": TEXT, "value": REAL, "gold": REAL})
"""Samples of one model and task, before they are gathered into `MODEL_SAMPLES`."""

PART_MEASURES = pa.schema({"measure": TEXT, "subset": TEXT, "split": TEXT, "query": TEXT, "value": REAL})
PART_RANKINGS = pa.schema({"subset": TEXT, "split": TEXT, "query": TEXT, "document": TEXT, "rank": INT})
"""Of one model and a part of a task, before they are gathered into the tables below."""
_OF_MODEL = pa.schema({"model": TEXT, "dimension": INT, "task": TEXT, "part": TEXT})
QUERY_MEASURES = declare(
    Table(
        name="query_measures",
        assets="retriever_scores/*",
        file="measures.parquet",
        schema=pa.schema([*_OF_MODEL, *PART_MEASURES]),
    )
)
RANKINGS = declare(
    Table(
        name="rankings",
        assets="retriever_scores/dense",
        file="rankings.parquet",
        schema=pa.schema([*_OF_MODEL, *PART_RANKINGS]),
    )
)
