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
SCORES = declare(
    Table(
        name="scores",
        assets="scores/*",
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
        assets="scores/*",
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
