"""Results of work on one shard of texts, kept by what they were made of, so that nothing is worked out twice."""

from __future__ import annotations

import os
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from storage.artefacts import sync
from storage.workspace import Workspace


@dataclass(frozen=True)
class ShardStore:
    """Parquet files by key under `shards/<kind>/`; a file is there whole or not at all.

    Attributes:
        workspace: The folder of all state.
        kind: What the files hold; one schema each.
    """

    workspace: Workspace
    kind: str

    def path(self, key: str) -> Path:
        """Where the shard lies or will lie."""
        return self.workspace.shards / self.kind / key[:2] / f"{key}.parquet"

    def get(self, key: str, make: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        """The shard, made if it is not there."""
        path = self.path(key)
        if path.is_file():
            return pl.read_parquet(path)
        frame = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{key}.{os.getpid()}")
        frame.write_parquet(fresh, compression="zstd")
        sync(fresh)
        fresh.replace(path)
        return frame

    def ensure(self, key: str, make: Callable[[], pl.DataFrame]) -> None:
        """Make the shard unless it is there."""
        if not self.path(key).is_file():
            self.get(key, make)

    def read(self, key: str, columns: list[str] | None = None) -> pl.DataFrame:
        """Some columns of a shard that was made."""
        return pl.read_parquet(self.path(key), columns=columns)

    def read_all(self, keys: list[str], columns: list[str]) -> pl.DataFrame:
        """Some columns of shards that were made, one shard after another."""
        return pl.read_parquet([self.path(key) for key in keys], columns=columns, glob=False)


def free_shards(workspace: Workspace, needed: Set[str], *, dry_run: bool) -> list[dict[str, Any]]:
    """Remove shards whose key is not needed, and what was worked out from them (`<key>-<settings>`).

    Returns:
        Kind, files and MiB of what went, or with `dry_run` would go.
    """
    freed = []
    for folder in sorted(workspace.shards.glob("*")):
        files = [path for path in folder.rglob("*") if path.is_file() and path.stem.split("-")[0] not in needed]
        size = sum(path.stat().st_size for path in files)
        if files:
            freed.append({"kind": folder.name, "files": len(files), "MiB": f"{size / 2**20:,.1f}"})
        for path in files if not dry_run else ():
            path.unlink()
    return freed
