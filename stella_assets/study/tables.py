"""The table that a study writes."""

from __future__ import annotations

import pyarrow as pa

from stella_assets.core.tables import declare
from stella_assets.storage.tables import INT, REAL, TEXT, Table
from stella_assets.study import STUDY_ASSET

STUDY = declare(
    Table(
        name="study",
        assets=STUDY_ASSET,
        file="study.parquet",
        schema=pa.schema(
            {
                "variant": TEXT, "seed": INT, "stages": INT, "dimension": INT, "task": TEXT, "type": TEXT,
                "score": REAL, "dev_loss": REAL, "dev_neighbours": REAL, "digest": TEXT,
            }
        ),
    )
)  # fmt: skip
