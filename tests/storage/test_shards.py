"""A shard is used only as it was written: what is damaged is made again."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from stella_assets.storage.errors import DamageError
from stella_assets.storage.shards import ShardStore
from stella_assets.storage.workspace import Workspace

ROWS = pl.DataFrame({"id": ["a", "b"], "text": ["one text", "another one"]})


@pytest.fixture
def store(workspace: Workspace) -> ShardStore:
    return ShardStore(workspace, "cleaned")


def refuse() -> pl.DataFrame:
    raise AssertionError("it was there")


def test_a_whole_shard_is_not_made_again(store: ShardStore):
    store.get("0a", lambda: ROWS)
    assert store.get("0a", refuse).equals(ROWS)
    store.ensure("0a", refuse)
    assert store.read("0a", ["id"]).columns == ["id"]


def test_every_flipped_bit_is_found_and_the_shard_is_made_again(store: ShardStore):
    store.get("0a", lambda: ROWS)
    path = store.path("0a")
    content = path.read_bytes()
    for place in range(0, 8 * len(content), 41):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        assert not store.holds("0a")
        with pytest.raises(DamageError, match=r"0a\.parquet was changed"):
            store.read("0a")
        with pytest.raises(DamageError, match=r"0a\.parquet was changed"):
            store.read_all(["0a"], ["id"])
    assert store.get("0a", lambda: ROWS).equals(ROWS)
    assert store.get("0a", refuse).equals(ROWS)


@pytest.mark.parametrize("content", [None, b"", b"[1, 2]", b"{}"])
def test_a_shard_without_its_digest_is_made_again(store: ShardStore, content: bytes | None):
    store.get("0a", lambda: ROWS)
    seal = store.path("0a").with_suffix(".json")
    if content is None:
        seal.unlink()
    else:
        seal.write_bytes(content)
    assert not store.holds("0a")
    store.ensure("0a", lambda: ROWS)
    assert store.holds("0a")


def test_a_copied_workspace_has_its_shards(store: ShardStore, tmp_path: Path):
    store.get("0a", lambda: ROWS)
    shutil.copytree(store.workspace.root, tmp_path / "copy")
    copy = ShardStore(Workspace(tmp_path / "copy"), "cleaned")
    assert copy.get("0a", refuse).equals(ROWS)
