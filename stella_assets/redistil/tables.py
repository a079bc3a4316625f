"""The table of re-distillations: the ledgers of all recipes."""

from __future__ import annotations

import pyarrow as pa

from stella_assets.core.tables import declare
from stella_assets.storage.tables import INT, REAL, TEXT, LineTable

REDISTILLATIONS = declare(
    LineTable(
        name="redistillations",
        folder="redistillations",
        schema=pa.schema(
            {
                "started_at": TEXT, "recipe": TEXT, "verdict": TEXT, "why": TEXT, "new_texts": INT, "embedded": INT,
                "score": REAL, "release": TEXT, "seconds": REAL,
            }
        ),
    )
)  # fmt: skip
