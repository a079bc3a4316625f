"""What held-out tasks ask where the corpus has pairs: its own queries of the test split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stella_assets.storage.polars import pl

if TYPE_CHECKING:
    from stella_assets.corpus.pairs import PairTables
    from stella_assets.corpus.read import CorpusTexts

Text = dict[str, str]


def halves_of_pairs(pairs: PairTables, corpus: CorpusTexts, documents: Sequence[Text]) -> list[Text]:
    """Test queries, as `sentence`, each with a document that answers it, as `rest`.

    Args:
        pairs: Of the corpus.
        corpus: Its texts.
        documents: With `id`, `text` and `section`; pairs with another positive are left out.

    Returns:
        One entry per pair, in the order of the documents and of the queries' ids.
    """
    import numpy as np

    among = pl.DataFrame({"positive": [row["id"] for row in documents]}, schema={"positive": pl.String})
    among = among.with_row_index("place")
    found = pairs.pairs().filter(split="test").join(among, on="positive").sort("place", "query")
    ids = pl.DataFrame(corpus.table(["id"])).with_row_index("position")
    asked = ids.filter(pl.col("id").is_in(found["query"].unique().implode())).sort("position")
    rows = corpus.take(asked["position"].to_numpy().astype(np.int64), ["id", "text"]).to_pylist()
    text_of = {row["id"]: row["text"] for row in rows}
    return [
        {
            "id": documents[place]["id"],
            "section": documents[place]["section"],
            "sentence": text_of[query],
            "rest": documents[place]["text"],
        }
        for place, query in found.select("place", "query").iter_rows()
    ]
