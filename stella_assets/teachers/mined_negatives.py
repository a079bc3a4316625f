"""Step `mined_negatives`: texts that look like an answer to a query and are none, from a teacher's stored vectors.

Shapes: N documents, D dimensions, Q queries of a block, K negatives of a query, T rows of a table.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pyarrow as pa
from pydantic import Field

from stella_assets.core.config import ConfigModel, Name, Positive
from stella_assets.core.progress import progress_bar
from stella_assets.core.step import BuildContext, Presentation, Result, Step, from_folder
from stella_assets.corpus.pairs import PairTables
from stella_assets.storage.canonical import digest
from stella_assets.storage.files import replace_atomically
from stella_assets.storage.keys import find_sorted, to_ids, to_keys
from stella_assets.storage.polars import pl
from stella_assets.teachers.snapshot import Snapshot
from stella_assets.teachers.tables import MINED_NEGATIVES

if TYPE_CHECKING:
    from torch import Tensor

CODE_VERSION = "1"
NAME = "mined_negatives"
READ_ROWS = 16_384
SPLITS = ("train", "dev")
BLOCK = pa.schema({"query": pa.int64(), "document": pa.int64(), "rank": pa.int64(), "cosine": pa.float64()})


class MineNegatives(ConfigModel):
    """How negatives are mined for the pairs of the corpus.

    References:
        Moreira et al. 2024, NV-Retriever, arXiv 2407.15831: the filter `TopK-PercPos`.
    """

    teacher: Name = Field(description="name of the teacher whose stored vectors are compared")
    per_query: Positive = Field(default=10, le=1000, description="negatives of a query at most")
    ratio: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.95, description="a negative's cosine with the query is below this share of the least positive's"
    )
    # Excluded where it is not given: a recipe without it has the digest that it had before.
    random: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=0,
        exclude_if=lambda count: count == 0,
        description="further documents of a query, drawn at random from those below that bound, ranked after the "
        "others: from near ones alone a new reranker does not learn to compare two texts",
    )


class MinedNegatives:
    """The negatives that were mined.

    Args:
        folder: Of the artefact.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def negatives(self) -> pl.DataFrame:
        """`query`, `negative`, `rank` from 1, `cosine` and `split`, by query and rank."""
        return pl.read_parquet(self.folder / MINED_NEGATIVES.file)


def mined_negatives_step(
    recipe: str, *, mine: MineNegatives, pairs: Step[PairTables], concatenation: Step[Snapshot]
) -> Step[MinedNegatives]:
    """The step that mines negatives.

    Args:
        recipe: Name of the recipe.
        mine: Whose vectors, how many negatives, and how near they may be.
        pairs: The pairs.
        concatenation: The stored vectors.
    """

    def build(context: BuildContext) -> Result:
        tables, snapshot = context.read(pairs), context.read(concatenation)
        counts: dict[str, int] = {}
        found = []
        for split in SPLITS:
            rows, more = _Mining(mine, tables, snapshot, split, context).run()
            found.append(rows)
            counts = {name: counts.get(name, 0) + count for name, count in more.items()}
        MINED_NEGATIVES.write(context.folder, pl.concat(found).select(MINED_NEGATIVES.schema.names).to_arrow())
        context.log.info(
            f"{NAME}: {counts['negatives']:,} negatives of {counts['queries']:,} queries. Known positives among the "
            f"{mine.per_query} nearest documents of {counts['sampled']:,} queries, which a plain miner would take as "
            f"negatives: {counts['plain_positives']:,}. Among all mined negatives: {counts['positives']:,}."
        )
        return Result(metrics=counts)

    return Step(
        recipe=recipe,
        name=NAME,
        code_version=CODE_VERSION,
        settings=mine.settings(),
        dependencies=(pairs, concatenation),
        build=build,
        read=from_folder(MinedNegatives),
        pool="encoding",
        presentation=Presentation(
            group="teachers",
            kinds=frozenset({"lancedb", "parquet"}),
            description="Documents that a teacher finds near a query, and clearly less near than what answers it.",
        ),
    )


class _Mining:
    """The negatives of the queries of one split."""

    def __init__(
        self, mine: MineNegatives, tables: PairTables, snapshot: Snapshot, split: str, context: BuildContext
    ) -> None:
        self._mine, self._snapshot, self._split, self._context = mine, snapshot, split, context
        # Documents of the same split: a negative must not bring a text of another one into training.
        rows = snapshot.rows(split)
        roles = np.array(snapshot.take(rows, ["role"])["role"], dtype=object) if len(rows) else np.empty(0, object)
        self._rows_N = rows[roles == "document"]
        self._keys_N = snapshot.keys[self._rows_N]
        pairs = tables.pairs().filter(pl.col("split") == split)
        keys = snapshot.keys
        query_T, there_T = find_sorted(keys, to_keys(pairs["query"].to_list()))
        positive_T, has_T = find_sorted(keys, to_keys(pairs["positive"].to_list()))
        # A text that a teacher refused has no vector.
        kept = there_T & has_T
        self._query_T, self._positive_T = query_T[kept], positive_T[kept]
        self._queries = np.unique(self._query_T)

    def run(self) -> tuple[pl.DataFrame, dict[str, int]]:
        """The negatives, and what a plain miner would have taken."""
        from stella_assets.teachers.nearest_below import QUERY_BLOCK

        blocks, counts = [pl.DataFrame(schema=pl.Schema(BLOCK))], {"plain_positives": 0, "sampled": 0}
        documents_ND = self._documents()
        with progress_bar(len(self._queries), NAME, "queries") as bar:
            for start in range(0, len(self._queries), QUERY_BLOCK):
                queries = self._queries[start : start + QUERY_BLOCK]
                # One file per block: an interrupted run continues behind the last one.
                path = self._context.scratch / f"{self._split}_{start}.parquet"
                if not path.exists():
                    with replace_atomically(path) as draft:
                        self._mine_block(queries, documents_ND).write_parquet(draft)
                blocks.append(pl.read_parquet(path))
                if start == 0:
                    counts = {"plain_positives": self._plain(queries, documents_ND), "sampled": len(queries)}
                bar.update(len(queries))
        found = pl.concat(blocks)
        keys = self._snapshot.keys
        known = pl.DataFrame({"query": self._query_T, "row": self._positive_T})
        mined = found.with_columns(row=pl.Series(self._rows_N[found["document"].to_numpy()], dtype=pl.Int64))
        table = mined.select(
            query=pl.Series(to_ids(keys[mined["query"].to_numpy()]), dtype=pl.String),
            negative=pl.Series(to_ids(keys[mined["row"].to_numpy()]), dtype=pl.String),
            rank="rank",
            cosine="cosine",
            split=pl.lit(self._split),
        )
        return table, {
            "queries": len(self._queries),
            "negatives": len(found),
            "positives": len(mined.join(known, on=["query", "row"], how="semi")),
            **counts,
        }

    def _documents(self) -> np.ndarray:
        """The documents' vectors, mapped from a file: the system keeps what memory allows."""
        dim = dict(zip(self._snapshot.layout.teachers, self._snapshot.layout.dims, strict=True))[self._mine.teacher]
        path = self._context.scratch / f"documents_{self._split}_{digest(self._mine.teacher)[:8]}.npy"
        if not len(self._rows_N):
            return np.empty((0, dim), dtype=np.float16)
        if not path.exists():
            with replace_atomically(path) as draft:
                mapped = np.lib.format.open_memmap(draft, mode="w+", dtype=np.float16, shape=(len(self._rows_N), dim))
                for start in range(0, len(mapped), READ_ROWS):
                    rows = self._rows_N[start : start + READ_ROWS]
                    mapped[start : start + len(rows)] = self._snapshot.vectors(rows, [self._mine.teacher])
                mapped.flush()
        return np.load(path, mmap_mode="r")

    def _vectors(self, rows: np.ndarray) -> Tensor:
        import torch

        vectors = self._snapshot.vectors(rows, [self._mine.teacher])
        return torch.from_numpy(vectors).to(self._context.compute.device).float()

    def _mine_block(self, queries: np.ndarray, documents_ND: np.ndarray) -> pl.DataFrame:
        import torch

        from stella_assets.teachers.nearest_below import nearest_below, positive_aware_bound

        queries_QD = self._vectors(queries)
        mine = np.isin(self._query_T, queries)
        place_T, positive_T = np.searchsorted(queries, self._query_T[mine]), self._positive_T[mine]
        # Of several positives the least near one decides.
        cosine_T = (queries_QD[place_T] * self._vectors(positive_T)).sum(dim=1).cpu()
        least_Q = torch.full((len(queries),), torch.inf)
        least_Q.scatter_reduce_(0, torch.from_numpy(place_T), cosine_T, "amin")
        bound_Q = positive_aware_bound(least_Q, self._mine.ratio).to(queries_QD.device)
        # Known positives, and the query itself where it is a document.
        known_Q = np.concatenate([place_T, np.arange(len(queries))])
        document, there = find_sorted(self._keys_N, self._snapshot.keys[np.concatenate([positive_T, queries])])
        known_Q, document = known_Q[there], document[there]
        order = np.argsort(document, kind="stable")
        known = torch.from_numpy(known_Q[order]), torch.from_numpy(document[order])
        best_QK, place_QK = nearest_below(queries_QD, documents_ND, bound_Q, known, self._mine.per_query)
        mined = _rows(queries, place_QK, best_QK)
        if not self._mine.random or not len(documents_ND):
            return mined
        return _with_random(mined, _rows(queries, *self._draw(queries, queries_QD, documents_ND, bound_Q)), self._mine)

    def _draw(
        self, queries: np.ndarray, queries_QD: Tensor, documents_ND: np.ndarray, bound_Q: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Places of documents drawn at random, -1 for those that are too near, and their cosines; both `[Q, 2 R]`."""
        import torch

        # Twice as many, as some are too near, doubled or mined already. Seeded by the place of the first query, so that
        # a run that continues draws what an undisturbed one draws.
        random = np.random.default_rng(int(queries[0]))
        place_QR = random.integers(0, len(documents_ND), (len(queries), 2 * self._mine.random))
        cosine_QR = torch.empty(place_QR.shape, device=queries_QD.device)
        for column, place_Q in enumerate(place_QR.T):
            drawn_QD = torch.from_numpy(np.asarray(documents_ND[place_Q])).to(queries_QD.device).float()
            cosine_QR[:, column] = (queries_QD * drawn_QD).sum(dim=1)
        # What answers the query and the query itself are above the bound.
        places = torch.from_numpy(place_QR).to(queries_QD.device)
        return places.masked_fill(cosine_QR >= bound_Q[:, None], -1), cosine_QR

    def _plain(self, queries: np.ndarray, documents_ND: np.ndarray) -> int:
        """Known positives among the nearest documents of these queries, whatever their cosine."""
        import torch

        from stella_assets.teachers.nearest_below import nearest_below

        document, there = find_sorted(self._keys_N, self._snapshot.keys[queries])
        own = np.flatnonzero(there)[np.argsort(document[there], kind="stable")]
        known = torch.from_numpy(own), torch.from_numpy(document[own])
        queries_QD = self._vectors(queries)
        no_bound = torch.full((len(queries),), torch.inf, device=queries_QD.device)
        _, place_QK = nearest_below(queries_QD, documents_ND, no_bound, known, self._mine.per_query)
        found = place_QK.cpu().numpy()
        positive, there = find_sorted(self._keys_N, self._snapshot.keys[self._positive_T])
        there &= np.isin(self._query_T, queries)
        at = np.searchsorted(queries, self._query_T[there])
        return int((found[at] == positive[there][:, None]).any(axis=1).sum())


def _rows(queries: np.ndarray, place_QK: Tensor, cosine_QK: Tensor) -> pl.DataFrame:
    """A row per document that was found, by query and rank; -1 stands for none."""
    at_Q, rank_Q = (place_QK >= 0).nonzero(as_tuple=True)
    return pl.DataFrame(
        {
            "query": queries[at_Q.cpu().numpy()],
            "document": place_QK[at_Q, rank_Q].cpu().numpy(),
            "rank": rank_Q.cpu().numpy() + 1,
            "cosine": cosine_QK[at_Q, rank_Q].double().cpu().numpy(),
        },
        schema=pl.Schema(BLOCK),
    )


def _with_random(mined: pl.DataFrame, drawn: pl.DataFrame, mine: MineNegatives) -> pl.DataFrame:
    """The mined documents, and behind them those that were drawn and not mined, each once."""
    new = drawn.join(mined, on=["query", "document"], how="anti", maintain_order="left")
    new = new.unique(["query", "document"], keep="first", maintain_order=True)
    new = new.filter(pl.int_range(pl.len()).over("query") < mine.random)
    found = pl.concat([mined, new.with_columns(pl.col("rank") + mine.per_query)]).sort("query", "rank")
    return found.with_columns(rank=1 + pl.int_range(pl.len(), dtype=pl.Int64).over("query"))
