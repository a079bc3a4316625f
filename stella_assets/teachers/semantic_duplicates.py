"""Step `semantic_duplicates`: texts that a teacher finds too similar to another one; no stage trains on them.

Held-out texts come first and all stay, so that nothing near them is trained on. Then texts are ranked as for near
copies, by the order of sources, then by id.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stella_assets.core.progress import progress_bar
from stella_assets.core.step import Artefact, BuildContext, Presentation, Result, Step
from stella_assets.corpus.dropped import DROPPED_FILE, as_dropped, show_dropped, write_dropped
from stella_assets.corpus.read import CorpusTexts
from stella_assets.corpus.settings import Semantic
from stella_assets.storage.keys import Keys, to_keys
from stella_assets.storage.polars import pl
from stella_assets.teachers.refusal import Texts
from stella_assets.teachers.similarity import EXACT, NEAR, most_similar_before
from stella_assets.teachers.snapshot import Snapshot

CODE_VERSION = "1"
NAME = "semantic_duplicates"
RULE = "semantic duplicate"
# Texts in memory at a time, when what is left out is written.
ROWS_AT_ONCE = 65_536


def semantic_duplicates_step(
    recipe: str,
    *,
    semantic: Semantic,
    sources: Sequence[str],
    corpus: Step[CorpusTexts],
    concatenation: Step[Snapshot],
) -> Step[Artefact]:
    """The step that finds texts of the same meaning.

    Args:
        recipe: Name of the recipe.
        semantic: Whose vectors are compared, and the cosine from which a text is a duplicate; it must have one.
        sources: Names of the sources; of two texts the one of the earlier source stays.
        corpus: The step that makes the corpus.
        concatenation: The step that makes the snapshot.

    Returns:
        A step whose artefact lists the rows; `rows_left_out` reads it. The corpus and the snapshot stay as they are.

    References:
        SemDeDup, arXiv 2303.09540.
    """
    teacher, min_cosine = semantic.teacher, semantic.duplicates
    assert min_cosine is not None, "the recipe asks for semantic duplicates"
    return Step(
        recipe=recipe,
        name=NAME,
        code_version=CODE_VERSION,
        settings={"teacher": teacher, "cosine": min_cosine, "order": list(sources)},
        build=lambda context: _find(
            semantic.teacher, semantic.duplicates or 1, sources, corpus, concatenation, context
        ),
        presentation=Presentation(
            group="teachers",
            description="Texts that a teacher finds too similar to another one: no stage trains on them.",
            kinds=frozenset({"lancedb", "parquet"}),
            show=show_dropped,
        ),
        dependencies=(corpus, concatenation),
    )


def rows_left_out(folder: Path, snapshot: Snapshot) -> np.ndarray:
    """Rows of a snapshot that no stage trains on.

    Args:
        folder: Of an artefact of `semantic_duplicates`.
        snapshot: The snapshot that it was made of, or another one of the same texts.

    Returns:
        Row numbers, in the order of the list.
    """
    ids = pq.read_table(folder / DROPPED_FILE, columns=["id"]).column("id")
    # Keys are ascending, and every listed text is in the snapshot, so the places found are exact matches.
    return np.searchsorted(snapshot.keys, to_keys(ids))


def _find(
    teacher: str,
    min_cosine: float,
    sources: Sequence[str],
    corpus: Step[CorpusTexts],
    concatenation: Step[Snapshot],
    context: BuildContext,
) -> Result:
    snapshot = context.read(concatenation)
    # Rows of texts and snapshot have the same numbers: both are in the order of ids.
    texts = snapshot.of_corpus(context.read(corpus))
    order, held_out = _rank(texts, sources)
    # Above `EXACT` texts every text is in the clusters of NEAR pivots.
    comparisons = len(order) * (1 if len(order) <= EXACT else NEAR)
    with progress_bar(comparisons, NAME, "comparisons") as bar:
        cosines, places = most_similar_before(
            lambda rows: snapshot.vectors(rows, [teacher]), order, context.compute, bar.update
        )
    # Held-out texts come first in rank, and none of them is left out.
    cosines[:held_out] = -1
    # A text may be a copy of one that is left out itself: of a chain only the first text stays.
    copies = np.flatnonzero(cosines >= min_cosine)
    found = pl.DataFrame(
        {"row": order[copies], "kept": order[places[copies]], "value": np.round(cosines[copies].astype(np.float64), 4)}
    )
    write_dropped(_with_texts(found.sort("row"), texts, snapshot.keys), context.folder, context.scratch)
    context.log.info(f"{NAME}: {len(found):,} of {len(texts) - held_out:,} training texts are left out")
    return Result(
        metrics={
            "texts": len(texts),
            "texts_train": len(texts) - held_out,
            "left_out": len(found),
            "share_left_out": round(len(found) / max(len(texts) - held_out, 1), 4),
        }
    )


def _rank(texts: Texts, sources: Sequence[str]) -> tuple[np.ndarray, int]:
    """Rows by rank, and how many of them are held out."""
    columns = pl.DataFrame(pa.Table.from_batches(texts.scan(["split", "source"])))
    ranks = columns.select(
        train=pl.col("split") == "train",
        source=pl.col("source").replace_strict({name: i for i, name in enumerate(sources)}, return_dtype=pl.UInt16),
    )
    # False sorts before True, so held-out texts come first; `row` makes the order total.
    rows = ranks.with_row_index("row").sort("train", "source", "row")["row"]
    return rows.to_numpy().astype(np.int64), int((columns["split"] != "train").sum())


def _with_texts(found: pl.DataFrame, texts: Texts, keys: Keys) -> Iterator[pl.DataFrame]:
    """What is left out, in the form of the table of dropped texts."""
    for rows in found.iter_slices(ROWS_AT_ONCE):
        known = pl.DataFrame(texts.take(rows["row"].to_numpy(), ["id", "text", "source", "section", "role", "origin"]))
        kept = keys[rows["kept"].to_numpy()].tobytes()
        # The first 16 of an id's 32 hexadecimal digits; a key has 16 bytes.
        detail = pl.Series("detail", [f"like {kept[start : start + 8].hex()}" for start in range(0, len(kept), 16)])
        yield as_dropped(known.with_columns(rows["value"], detail, rule=pl.lit(RULE)))
