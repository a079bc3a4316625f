"""Mining finds what a search over all documents finds, in blocks, and takes no known answer."""

import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from stella_assets.core.devices import Compute
from stella_assets.corpus.pairs import PairTables
from stella_assets.corpus.tables import PAIRS
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers import nearest_below as search
from stella_assets.teachers.mined_negatives import MineNegatives, _Mining
from stella_assets.teachers.snapshot import Snapshot
from stella_assets.teachers.snapshot_writer import SnapshotWriter, TeacherColumn
from tests.snapshots import MemoryTexts

DIM, TEXTS, QUERIES = 8, 300, 60


def unit(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, DIM)).astype(np.float32)
    # A tenth of the documents are equal to another one, for ties.
    vectors[: rows // 10] = vectors[rows // 10 : 2 * (rows // 10)]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


@pytest.mark.parametrize("block", [7, 64, 1000])
def test_the_nearest_below_a_bound_are_those_of_a_full_sort(monkeypatch, block):
    monkeypatch.setattr(search, "DOCUMENT_BLOCK", block)
    documents, queries = unit(200, 0), torch.from_numpy(unit(30, 1)).float()
    bound = torch.linspace(-0.9, 0.9, 30)
    known_query = torch.arange(30)
    known_document = torch.sort(torch.from_numpy(np.random.default_rng(2).integers(0, 200, 30))).values
    best, place = search.nearest_below(queries, documents, bound, (known_query, known_document), 9)
    cosines = queries @ torch.from_numpy(documents).float().T
    for query in range(30):
        allowed = [
            (-cosines[query, d].item(), d)
            for d in range(200)
            if cosines[query, d] < bound[query] and d != known_document[query]
        ]
        expected = sorted(allowed)[:9]
        found = [(c, d) for c, d in zip((-best[query]).tolist(), place[query].tolist(), strict=True) if d >= 0]
        # Products of other blocks may differ in the last bit.
        assert [c for c, _ in found] == pytest.approx([c for c, _ in expected], abs=1e-6)
        assert len({d for _, d in found}) == len(found)
        if block == 1000:
            assert [d for _, d in found] == [d for _, d in expected]


@pytest.fixture
def mined(workspace: Workspace, tmp_path: Path):
    """Texts 0 to 59 are queries; each is answered by two documents, one of which is its nearest of all."""
    vectors = unit(TEXTS, 3)
    vectors[60:120] = vectors[:60]
    texts = [
        {"id": f"{i:032x}", "text": str(i), "source": "s", "section": "s", "split": "dev" if i % 6 == 0 else "train",
         "role": "query" if i < QUERIES else "document"}
        for i in range(TEXTS)
    ]  # fmt: skip
    column = TeacherColumn("t", DIM, 1.0, {}, lambda ids, _roles: vectors[[int(key, 16) for key in ids]])
    SnapshotWriter(workspace, "tiny").write("one", MemoryTexts(texts), [column], {})
    snapshot = Snapshot.open(workspace, "tiny", "one")
    pairs = [
        {"query": f"{q:032x}", "positive": f"{d:032x}", "split": "dev" if q % 6 == 0 else "train"}
        for q in range(QUERIES) for d in (q + 60, q + 120)
    ]  # fmt: skip
    folder = tmp_path / "pairs"
    folder.mkdir()
    PAIRS.write(folder, [{name: row.get(name) for name in PAIRS.schema.names} for row in pairs])

    class Context:
        scratch, compute, log = tmp_path / "scratch", Compute(), logging.getLogger("test")

    def run(**settings: object) -> tuple[pl.DataFrame, dict[str, int]]:
        mine = MineNegatives.model_validate({"teacher": "t", "per_query": 5, **settings})
        return _Mining(mine, PairTables(folder), snapshot, "train", Context).run()  # type: ignore[arg-type]

    return run, vectors.astype(np.float32)


def test_no_known_answer_is_taken_and_every_negative_is_clearly_less_near_than_the_answers(mined):
    run, vectors = mined
    table, counts = run()
    cosines = vectors @ vectors.T
    for query, negative, _, cosine, split in table.iter_rows():
        q, d = int(query, 16), int(negative, 16)
        least = min(cosines[q, q + 60], cosines[q, q + 120])
        assert cosine == pytest.approx(cosines[q, d], abs=1e-5)
        assert cosine < least - 0.05 * abs(least) + 1e-5
        assert (d - q) not in (60, 120)
        assert d >= QUERIES
        assert d % 6
        assert split == "train"
    assert counts["positives"] == 0
    # Its nearest document answers each of the 50 queries, and a plain miner would take it.
    assert counts["plain_positives"] >= 50
    assert counts["sampled"] == counts["queries"] == 50
    assert table.group_by("query").len()["len"].max() <= 5


def test_documents_that_are_drawn_at_random_follow_the_mined_ones_and_keep_to_the_same_bound(mined, tmp_path):
    run, vectors = mined
    near = run()[0]
    for path in (tmp_path / "scratch").iterdir():
        path.unlink()
    table = run(random=4)[0]
    drawn = table.join(near, on=["query", "negative"], how="anti", maintain_order="left")
    assert table.join(near, on=["query", "negative"], how="semi", maintain_order="left").equals(near)
    cosines, counts = vectors @ vectors.T, drawn.group_by("query").len()["len"]
    assert (counts.max(), counts.median()) == (4, 4)
    assert drawn["negative"].n_unique() > 80  # of 200 documents
    assert len(table.unique(["query", "negative"])) == len(table)
    for query, negative, _, cosine, _ in drawn.iter_rows():
        q, d = int(query, 16), int(negative, 16)
        assert cosine == pytest.approx(cosines[q, d], abs=1e-5)
        least = min(cosines[q, q + 60], cosines[q, q + 120])
        assert cosine < least - 0.05 * abs(least) + 1e-5
        assert d % 6
    assert (table["rank"] == 1 + table.select(pl.int_range(pl.len()).over("query")).to_series()).all()


def test_a_mining_that_was_interrupted_continues_and_ends_in_the_same_table(mined, monkeypatch, tmp_path):
    run, _ = mined
    monkeypatch.setattr(search, "QUERY_BLOCK", 16)
    made: list[int] = []
    block = _Mining._mine_block

    def counted(self, queries, documents):
        made.append(len(queries))
        if len(made) == 3:
            raise InterruptedError
        return block(self, queries, documents)

    monkeypatch.setattr(_Mining, "_mine_block", counted)
    with pytest.raises(InterruptedError):
        run()
    table, _ = run()
    # Two blocks were there; the third and the last one were made.
    assert made == [16, 16, 16, 16, 2]
    for path in (tmp_path / "scratch").iterdir():
        path.unlink()
    monkeypatch.setattr(_Mining, "_mine_block", block)
    assert run()[0].equals(table)
