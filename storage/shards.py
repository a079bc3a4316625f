"""Results for one shard of rows, kept by a key of what they were computed from, so that nothing is computed twice."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stella_assets.storage.checked import SealedFile
from stella_assets.storage.errors import DamageError
from stella_assets.storage.files import replace_atomically
from stella_assets.storage.polars import pl
from stella_assets.storage.workspace import Workspace


@dataclass(frozen=True)
class ShardStore:
    """Parquet files by key under `shards/<kind>/`; a file is there whole or not at all.

    Attributes:
        workspace: The folder of all state.
        kind: What the files hold; one schema each.

    Example:
        >>> store = ShardStore(workspace, "token_counts")
        >>> counts = store.get(key, make=lambda: count_tokens(rows))
    """

    workspace: Workspace
    kind: str

    def path(self, key: str) -> Path:
        """Where the shard lies or will lie."""
        # 256 folders by the first two digits: listing one folder of a million files is slow.
        return self.workspace.shards / self.kind / key[:2] / f"{key}.parquet"

    def get(self, key: str, make: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        """The shard, made if it is not there.

        Args:
            key: Digest of everything that decides the rows.
            make: Computes the rows.
        """
        path = self.path(key)
        if self.holds(key):
            return pl.read_parquet(path)
        frame = make()
        # Not locked: two processes at once compute the same rows, and the second rename replaces equal content.
        with replace_atomically(path) as fresh:
            frame.write_parquet(fresh, compression="zstd")
            # Before the file has its name: a file without a digest counts as damaged.
            SealedFile(path).seal(fresh)
        return frame

    def holds(self, key: str) -> bool:
        """Whether the shard was made and is as it was written."""
        return self.path(key).is_file() and SealedFile(self.path(key)).wrong() is None

    def require_whole(self, key: str) -> None:
        """Make sure that a shard that was made is as it was written.

        Raises:
            DamageError: It is not.
        """
        if wrong := SealedFile(self.path(key)).wrong():
            raise DamageError(f"{wrong}.", wrong.path)

    def ensure(self, key: str, make: Callable[[], pl.DataFrame]) -> None:
        """Make the shard unless it is there."""
        if not self.holds(key):
            self.get(key, make)

    def read(self, key: str, columns: list[str] | None = None) -> pl.DataFrame:
        """Some columns of a shard that was made.

        Raises:
            DamageError: It is not as it was written.
        """
        self.require_whole(key)
        return pl.read_parquet(self.path(key), columns=columns)

    def read_all(self, keys: list[str], columns: list[str]) -> pl.DataFrame:
        """Some columns of shards that were made, one shard after another.

        Raises:
            DamageError: One of them is not as it was written.
        """
        for key in keys:
            self.require_whole(key)
        # glob=False: a workspace's path may hold `[` or `*`.
        return pl.read_parquet([self.path(key) for key in keys], columns=columns, glob=False)


def free_shards(workspace: Workspace, look: Callable[[], Set[str] | None], *, dry_run: bool) -> list[dict[str, Any]]:
    """Remove shards whose key is not needed, and what was computed from them (`<key>-<settings>`).

    Args:
        workspace: The folder of all state.
        look: Gives the keys that are needed, or None if all are. It is asked after the files were listed, so that
            what a build writes from then on stays.
        dry_run: Only say what would be removed.

    Returns:
        Kind, files and MiB of what was removed, or with `dry_run` would be.
    """
    # Hidden files are temporary ones: of a running writer, or left to `finish_removals`.
    listed = {folder.name: list(folder.glob("*/[!.]*")) for folder in sorted(workspace.shards.glob("*"))}
    needed, freed = look(), []
    if needed is None:
        return []
    for kind, there in listed.items():
        files = [path for path in there if path.stem.split("-")[0] not in needed]
        size = sum(_size(path) for path in files)
        shards = sum(path.suffix == ".parquet" for path in files)
        if shards:
            freed.append({"kind": kind, "files": shards, "MiB": f"{size / 2**20:,.1f}"})
        for path in files if not dry_run else ():
            path.unlink(missing_ok=True)
    return freed


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
