"""The tables that the release steps write."""

from __future__ import annotations

import pyarrow as pa

from stella_assets.core.tables import declare
from stella_assets.storage.tables import FLAG, INT, REAL, TEXT, Table

VERDICTS = declare(
    Table(
        name="gate",
        assets="release_gate",
        file="verdicts.parquet",
        schema=pa.schema(
            {
                "requirement": TEXT, "subject": TEXT, "limit": REAL, "found": REAL, "low": REAL, "high": REAL,
                "passed": FLAG, "sure": FLAG, "note": TEXT,
            }
        ),
    )
)  # fmt: skip
RELEASED_VECTORS = pa.schema(
    {"loader": TEXT, "dimension": INT, "texts": INT, "least_cosine": REAL, "mean_cosine": REAL}
)
"""How the vectors of each way of loading a release compare with the student's own."""
