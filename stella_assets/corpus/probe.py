"""Probe texts: a few texts that models are measured and compared with."""

from __future__ import annotations

import numpy as np

from stella_assets.corpus.text import uniform
from stella_assets.storage.polars import pl

PROBE_TEXTS = 128


def probe_rows(texts: pl.DataFrame) -> np.ndarray:
    """The rows of the probe texts, the same texts whatever the order of the rows.

    Args:
        texts: With `id`, `split` and `role`.

    Returns:
        At most `PROBE_TEXTS` positions: test documents, and other texts where these are too few.
    """
    held_out = (pl.col("split") == "test") & (pl.col("role") == "document")
    order = pl.Series("order", [uniform("probe", each) for each in texts["id"]], dtype=pl.Float64)
    # `False` sorts before `True`: test documents come first, other texts only fill up.
    ranked = texts.select(others=~held_out).with_columns(order).with_row_index("row").sort("others", "order")
    return ranked.head(PROBE_TEXTS)["row"].to_numpy().astype(np.int64)
