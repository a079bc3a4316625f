"""The one folder that holds all state, and where everything lies in it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path


class DiskSpaceError(ValueError):
    """The disk has too little room for what is about to be written."""


@dataclass(frozen=True)
class Workspace:
    """`STELLA_HOME`: `artefacts/` and `shards/` by content, `lancedb/` for vectors, `<recipe>/` links to the current.

    Attributes:
        root: The folder.
        vectors_uri: Where vectors are kept instead of `lancedb/`: another folder, or an object store (`s3://...`).
    """

    root: Path
    vectors_uri: str | None = None

    @property
    def artefacts(self) -> Path:
        """Finished artefacts, `artefacts/<asset>/<key>/`, never changed once they are there."""
        return self.root / "artefacts"

    @property
    def shards(self) -> Path:
        """What was worked out for each shard of texts, by content key."""
        return self.root / "shards"

    @property
    def vectors(self) -> str:
        """The LanceDB database that keeps teacher vectors and their snapshots."""
        return (self.vectors_uri or str(self.root / "lancedb")).rstrip("/")

    @property
    def remote(self) -> bool:
        """Whether the vectors lie in an object store, where other machines may write as well."""
        return "://" in self.vectors

    @property
    def locks(self) -> Path:
        """Lock files; the operating system frees a lock when its process dies."""
        return self.root / "locks"

    @property
    def statistics(self) -> Path:
        """The DuckDB database of views over the Parquet files of the current artefacts."""
        return self.root / "statistics.duckdb"

    def current(self, recipe: str, asset: str) -> Path:
        """The link to the artefact that `recipe` uses now for `asset`."""
        return self.root / recipe / asset

    @property
    def releases(self) -> Path:
        """What was promoted, by recipe and name."""
        return self.root / "releases"

    @property
    def starts(self) -> Path:
        """What students continue from, a file a recipe; without one they begin with the base model."""
        return self.root / "starts"

    @property
    def redistillations(self) -> Path:
        """What came of each re-distillation, JSON Lines, a file a recipe."""
        return self.root / "redistillations"

    @property
    def runs(self) -> Path:
        """What each run made, JSON Lines, a file a run."""
        return self.root / "runs"

    def require_space(self, needed_bytes: int, purpose: str) -> None:
        """Raise `DiskSpaceError` unless `needed_bytes` are free, with a tenth to spare; object stores have no end."""
        if self.remote:
            return
        folder = Path(self.vectors)
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < needed_bytes * 1.1:
            raise DiskSpaceError(
                f"{folder}: {purpose} needs about {needed_bytes / 2**20:,.0f} MiB and {free / 2**20:,.0f} MiB are "
                "free. Free some space, or set STELLA_HOME to a folder on a larger disk."
            )
