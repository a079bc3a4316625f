"""Exports that other tools read, in bounded blocks, and SQL on the vectors themselves."""

import json
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from stella_assets.corpus.tables import FUNNEL
from stella_assets.storage.errors import MissingSnapshotError
from stella_assets.storage.views import connect_vectors
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers import transfer
from stella_assets.teachers.catalogue import compare, describe, list_snapshots, list_teachers, open_snapshot
from stella_assets.teachers.snapshot import Snapshot
from stella_assets.teachers.transfer import FORMATS, export_snapshot
from tests.snapshots import Corpus, Teacher, vectors_of, write
from tests.storage.test_garbage import fill


@pytest.fixture
def snapshot(workspace: Workspace) -> Snapshot:
    write(workspace, "one", Corpus(range(90)), Teacher("small", 3), Teacher("wide", 5, weight=0.5))
    return Snapshot.open(workspace, "tiny", "one")


def read_back(folder: Path, form: str) -> tuple[list[str], np.ndarray]:
    if form == "parquet":
        table = pq.read_table(folder / "vectors.parquet")
        parts = [np.stack(table.column(f"vector_{name}").to_numpy()) for name in ("small", "wide")]
        return table.column("id").to_pylist(), np.concatenate(parts, axis=1)
    ids = pq.read_table(folder / "texts.parquet").column("id").to_pylist()
    if form == "npy":
        return ids, np.load(folder / "vectors.npy", mmap_mode="r")
    shards = sorted(folder.glob("vectors-*-of-*.safetensors"))
    return ids, np.concatenate([load_file(shard)["vectors"] for shard in shards])


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_holds_every_row_and_explains_itself(
    snapshot: Snapshot, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(transfer, "BLOCK_ENTRIES", 8 * 64)
    monkeypatch.setattr(transfer, "SHARD_ENTRIES", 8 * 40)
    files = export_snapshot(snapshot, tmp_path / "out", form)
    assert {path.parent for path in files} == {tmp_path / "out"}
    ids, vectors = read_back(tmp_path / "out", form)
    rows = np.arange(90)
    assert ids == snapshot.take(rows, ["id"])["id"]
    assert vectors.dtype == np.float16
    np.testing.assert_array_equal(vectors, snapshot.vectors(rows))
    about = json.loads((tmp_path / "out" / "vectors.json").read_text())
    layout = {"teachers": ["small", "wide"], "dims": [3, 5], "weights": [1.0, 0.5], "means": [None, None]}
    assert about["layout"] == layout
    assert (about["rows"], about["lineage"]) == (90, {"corpus": "one"})
    if form == "safetensors":
        assert len(list((tmp_path / "out").glob("*.safetensors"))) == 3


def test_one_teacher_can_be_exported_alone(snapshot: Snapshot, tmp_path: Path):
    export_snapshot(snapshot, tmp_path / "out", "npy", ["wide"])
    assert np.load(tmp_path / "out" / "vectors.npy").shape == (90, 5)


def test_duckdb_reads_an_exported_parquet_file(snapshot: Snapshot, tmp_path: Path):
    export_snapshot(snapshot, tmp_path / "out", "parquet")
    rows = duckdb.sql(f"SELECT count(*), count(DISTINCT id) FROM '{tmp_path}/out/vectors.parquet'").fetchall()
    assert rows == [(90, 90)]


def test_sql_sees_vectors_as_float32_and_reads_only_the_columns_it_names(snapshot: Snapshot, workspace: Workspace):
    connection = connect_vectors(workspace, [FUNNEL], {"vectors": snapshot.dataset})
    assert connection.execute("SELECT count(*) FROM funnel").fetchall() == [(0,)]
    types = dict(zip(connection.table("vectors").columns, map(str, connection.table("vectors").types), strict=True))
    assert (types["vector_small"], types["vector_wide"], types["id"]) == ("FLOAT[3]", "FLOAT[5]", "VARCHAR")
    query = """
        SELECT b.id, array_cosine_similarity(a.vector_wide, b.vector_wide) AS cosine FROM vectors a, vectors b
        WHERE a.id = ? AND b.id <> a.id ORDER BY cosine DESC LIMIT 1
    """
    ids = snapshot.take(np.arange(90), ["id"])["id"]
    found, cosine = connection.execute(query, [ids[7]]).fetchone()
    vectors = vectors_of(ids, 5, "wide1").astype(np.float32)
    cosines = vectors @ vectors[7] / np.linalg.norm(vectors, axis=1) / np.linalg.norm(vectors[7])
    cosines[7] = -1
    assert found == ids[int(cosines.argmax())]
    assert cosine == pytest.approx(cosines.max(), abs=1e-5)
    counts = connection.execute(
        "SELECT source, count(*) FROM vectors WHERE chars > 13 GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert counts == [("books", 40), ("web", 40)]
    connection.close()


def test_the_catalogue_lists_describes_and_compares(workspace: Workspace, snapshot: Snapshot):
    fill(workspace, "f1")
    write(workspace, "two", Corpus(range(10, 100), source="library"), Teacher("small", 3, fit="2"))
    assert [(t["fingerprint"], t["dim"], t["rows"]) for t in list_teachers(workspace)] == [("f1", 4, 20)]
    assert [(s["tag"], s["rows"], s["dim"]) for s in list_snapshots(workspace)] == [("one", 90, 8), ("two", 90, 3)]
    assert describe(workspace, "f1")["rows"] == 20
    assert describe(workspace, "tiny@tw")["layout"]["teachers"] == ("small",)
    assert len(open_snapshot(workspace, "tiny")) == 90
    found = compare(snapshot, open_snapshot(workspace, "tiny@two"))
    texts = {row["source"]: row for row in found["texts"]}
    assert texts["web"] == {"source": "web", "added": 5, "removed": 5, "changed": 0, "kept": 40}
    assert texts["books"] == {"source": "books", "added": 0, "removed": 5, "changed": 0, "kept": 0}
    assert texts["library"] == {"source": "library", "added": 5, "removed": 0, "changed": 40, "kept": 0}
    assert [(t["teacher"], t["verdict"]) for t in found["teachers"]] == [("small", "changed"), ("wide", "removed")]
    with pytest.raises(MissingSnapshotError, match=r"0 snapshots begin with x; there are one, two"):
        open_snapshot(workspace, "tiny@x")
    with pytest.raises(MissingSnapshotError, match=r"'nobody' has no snapshot in .*; it has those of tiny"):
        describe(workspace, "nobody")
