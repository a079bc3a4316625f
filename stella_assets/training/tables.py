"""The tables that every training writes."""

from __future__ import annotations

import pyarrow as pa

from stella_assets.core.tables import declare
from stella_assets.storage.tables import INT, REAL, TEXT, Table

# Long format, one value per row: each stage has terms of its own, and SQL reads all stages as one view.
LOG = pa.schema({"stage": TEXT, "step": INT, "split": TEXT, "term": TEXT, "value": REAL, "learning_rate": REAL})
TRAINING_LOG = declare(Table(name="training_log", assets="stage_*", file="training_log.parquet", schema=LOG))
RETRIEVER_LOG = declare(Table(name="retriever_log", assets="retriever/*", file="training_log.parquet", schema=LOG))
