"""The one folder that holds all state, and where everything lies in it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from stella_assets.storage.errors import DiskSpaceError

RESERVE = 1.1
"""Free space is asked for with a tenth to spare."""


@dataclass(frozen=True)
class Workspace:
    """`artefacts/` and `shards/` by content, `lancedb/` for vectors, `<recipe>/` with links to what a recipe has now.

    Attributes:
        root: The folder.
        vectors_uri: Where vectors are kept instead of `lancedb/`: another folder, or an object store (`s3://...`).

    Example:
        >>> workspace = Workspace(Path("state"), vectors_uri="s3://bucket/vectors")
        >>> workspace.remote
        True
    """

    root: Path
    vectors_uri: str | None = None

    @property
    def artefacts(self) -> Path:
        """Finished artefacts, `artefacts/<asset>/<key>/`, never changed once they are there."""
        return self.root / "artefacts"

    @property
    def shards(self) -> Path:
        """Results for shards of rows, by content key."""
        return self.root / "shards"

    @property
    def vectors(self) -> str:
        """The LanceDB database that keeps vectors: a folder or a URI."""
        return (self.vectors_uri or str(self.root / "lancedb")).rstrip("/")

    @property
    def remote(self) -> bool:
        """Whether the vectors lie in an object store, where other machines may write as well."""
        return "://" in self.vectors

    @property
    def stores(self) -> set[Path]:
        """Folders that have no links of recipes in them, and may have very many files."""
        kept = {self.artefacts, self.shards, self.releases, self.locks, self.environments, self.reproductions}
        return kept | {Path(self.vectors)}

    @property
    def has_own_store(self) -> bool:
        """Whether the vectors lie in this folder, so that no other home uses them."""
        return not self.remote and Path(self.vectors).is_relative_to(self.root)

    @property
    def locks(self) -> Path:
        """Lock files; the operating system frees a lock when its process dies."""
        return self.root / "locks"

    @property
    def checked(self) -> Path:
        """Which files were found to be as they were written; it may be deleted, and files are then read again."""
        return self.root / "checked"

    @property
    def statistics(self) -> Path:
        """The DuckDB database of views over the files of artefacts."""
        return self.root / "statistics.duckdb"

    @property
    def history(self) -> tuple[Path, Path]:
        """Folders of databases that record runs and schedules; they decide no artefact."""
        return self.root / "history", self.root / "schedules"

    def current(self, recipe: str, asset: str) -> Path:
        """The link to the artefact that `recipe` uses now for `asset`."""
        return self.root / recipe / asset

    @property
    def releases(self) -> Path:
        """What was promoted, by recipe and name."""
        return self.root / "releases"

    @property
    def starts(self) -> Path:
        """What trainings continue from, one file per recipe."""
        return self.root / "starts"

    @property
    def redistillations(self) -> Path:
        """The ledgers of repeated runs, JSON Lines, one file per recipe."""
        return self.root / "redistillations"

    @property
    def reproductions(self) -> Path:
        """Releases that are made again, each in a workspace of its own."""
        return self.root / "reproductions"

    @property
    def environments(self) -> Path:
        """Python environments of their own for models, `environments/<digest>/`."""
        return self.root / "environments"

    @property
    def api(self) -> Path:
        """What services outside have answered, `api/<service>/`; it was paid for and is never removed."""
        return self.root / "api"

    @property
    def probes(self) -> Path:
        """What probes of recipes have measured; it may be deleted, and is then measured again."""
        return self.root / ".probes"

    def require_space(self, needed_bytes: int, purpose: str, folder: Path | str | None = None) -> None:
        """Check that the disk that will be written has room, with a tenth to spare.

        Args:
            needed_bytes: What is about to be written.
            purpose: What for, as the subject of a sentence.
            folder: Where it is written, e.g. `workspace.vectors`; by default the workspace's own folder. It need not
                exist yet. An object store has no size that could be asked for, so it is not checked.

        Raises:
            DiskSpaceError: There is too little room.
        """
        place = str(self.root if folder is None else folder)
        if "://" in place:
            return
        # The nearest existing folder, because a folder yet to be made may belong to another mounted disk.
        free = shutil.disk_usage(nearest_existing(Path(place))).free
        if free < needed_bytes * RESERVE:
            raise DiskSpaceError(
                f"{place}: {purpose} needs about {needed_bytes / 2**20:,.0f} MiB and {free / 2**20:,.0f} MiB are free.",
                place,
            )


def nearest_existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists: the disk that it will be made on."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())
