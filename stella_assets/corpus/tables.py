"""The tables that the corpus steps write."""

from __future__ import annotations

import pyarrow as pa

from stella_assets.core.tables import declare
from stella_assets.storage.tables import INT, REAL, TEXT, Table

TEXTS = declare(
    Table(
        name="texts",
        assets="corpus",
        file="corpus.parquet",
        schema=pa.schema(
            {
                "id": TEXT, "text": TEXT, "source": TEXT, "section": TEXT, "role": TEXT, "split": TEXT,
                "licence": TEXT, "origin": TEXT, "augmentation": TEXT, "parent": TEXT,
            }
        ),
    )
)  # fmt: skip
FUNNEL = declare(
    Table(
        name="funnel",
        assets="corpus",
        file="funnel.parquet",
        schema=pa.schema({"source": TEXT, "rule": TEXT, "texts": INT}),
    )
)
DROPPED = declare(
    Table(
        name="dropped",
        assets="**",  # every step that removes texts writes one
        file="dropped.parquet",
        schema=pa.schema(
            {
                "id": TEXT, "source": TEXT, "section": TEXT, "role": TEXT, "rule": TEXT, "value": REAL,
                "detail": TEXT, "excerpt": TEXT, "origin": TEXT,
            }
        ),
    )
)  # fmt: skip
CONTAMINATION = declare(
    Table(
        name="contamination",
        assets="contamination",
        file="matches.parquet",
        schema=pa.schema(
            {
                "id": TEXT, "source": TEXT, "evaluation": TEXT, "task": TEXT, "split": TEXT, "role": TEXT,
                "rule": TEXT, "value": REAL, "verdict": TEXT, "excerpt": TEXT, "evaluation_excerpt": TEXT,
            }
        ),
    )
)  # fmt: skip
PAIRS = declare(
    Table(
        name="pairs",
        assets="pairs",
        file="pairs.parquet",
        schema=pa.schema({"query": TEXT, "positive": TEXT, "source": TEXT, "split": TEXT, "origin": TEXT}),
    )
)
SCORED_PAIRS = declare(
    Table(
        name="scored_pairs",
        assets="pairs",
        file="pair_scores.parquet",
        schema=pa.schema(
            {"query": TEXT, "document": TEXT, "score": REAL, "source": TEXT, "split": TEXT, "origin": TEXT}
        ),
    )
)
PAIR_NEGATIVES = declare(
    Table(
        name="pair_negatives",
        assets="pairs",
        file="pair_negatives.parquet",
        schema=pa.schema({"query": TEXT, "negative": TEXT, "rank": INT, "source": TEXT, "split": TEXT}),
    )
)
PAIR_FUNNEL = declare(
    Table(
        name="pair_funnel",
        assets="pairs",
        file="pair_funnel.parquet",
        schema=pa.schema({"source": TEXT, "kind": TEXT, "rule": TEXT, "pairs": INT}),
    )
)
DROPPED_PAIRS = declare(
    Table(
        name="dropped_pairs",
        assets="pairs",
        file="dropped_pairs.parquet",
        schema=pa.schema(
            {
                "source": TEXT, "kind": TEXT, "rule": TEXT, "detail": TEXT, "query": TEXT, "document": TEXT,
                "origin": TEXT,
            }
        ),
    )
)  # fmt: skip
