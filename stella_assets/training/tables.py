"""The table that every stage writes."""

from __future__ import annotations

import pyarrow as pa

from stella_assets.core.tables import declare
from storage.tables import INT, REAL, TEXT, Table

TRAINING_LOG = declare(
    Table(
        name="training_log",
        assets="stage_*",
        file="training_log.parquet",
        schema=pa.schema(
            {"stage": TEXT, "step": INT, "split": TEXT, "term": TEXT, "value": REAL, "learning_rate": REAL}.items()
        ),
    )
)
