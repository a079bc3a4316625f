"""Cleaned texts in shards: files by content key, which recipes and runs share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stella_assets.core.manifest import Manifest
from stella_assets.core.step import Artefact
from stella_assets.corpus.evaluation_texts import TEXTS_FILE as EVALUATION_FILE
from stella_assets.storage.artefacts import MANIFEST
from stella_assets.storage.polars import pl
from stella_assets.storage.shards import ShardStore
from stella_assets.storage.workspace import Workspace

SHARDS_FILE = "shards.parquet"
CLEANED_KIND = "cleaned"
# Stated, so that a table without shards has the types of the others.
_SCHEMA = pa.schema(
    {"source": pa.string(), "key": pa.string(), "read": pa.int64(), "kept": pa.int64(), "reading": pa.string()}
)


@dataclass(frozen=True)
class Shard:
    """Some cleaned texts of one source.

    Attributes:
        source: The source's name.
        key: Of the shard in the store.
        read: Rows read.
        kept: Rows kept; they come first in the file.
        reading: What the source held and how it was read.
    """

    source: str
    key: str
    read: int
    kept: int
    reading: str


@dataclass(frozen=True)
class CleanedTexts:
    """The cleaned texts of a corpus.

    Attributes:
        folder: Of the artefact.
        shards: In the order in which they were read.
        store: The files of the shards.
    """

    folder: Path
    shards: tuple[Shard, ...]
    store: ShardStore

    @classmethod
    def open(cls, artefact: Artefact, workspace: Workspace) -> CleanedTexts:
        """The texts that an artefact names."""
        return cls(artefact.folder, tuple(read_shards(artefact.folder)), ShardStore(workspace, CLEANED_KIND))

    def __len__(self) -> int:
        return sum(shard.kept for shard in self.shards)

    def rows(self, shard: Shard, columns: list[str]) -> pl.DataFrame:
        """Columns of the texts of a shard that were kept.

        Args:
            shard: One of `shards`.
            columns: Of `id`, `text`, `section`, `role`, `licence`, `origin`, `parent` (the id of the text that it was
                taken from), `key` (equal for texts that differ only in case, punctuation and spacing) and `tie`.
        """
        # Rows that were not kept are stored behind the others, to explain them; `head` needs no filter.
        return self.store.read(shard.key, columns).head(shard.kept)

    def are_stored(self) -> bool:
        """Whether the files of all shards exist.

        Raises:
            DamageError: One of them is not as it was written.
        """
        if not all(self.store.path(shard.key).is_file() for shard in self.shards):
            return False
        for shard in self.shards:
            self.store.require_whole(shard.key)
        return True


def shard_table(shards: Iterable[Shard]) -> pl.DataFrame:
    """Shards as a table."""
    return pl.DataFrame([vars(shard) for shard in shards], schema=pl.Schema(_SCHEMA))


def shards_in(table: pl.DataFrame) -> list[Shard]:
    """The shards of such a table."""
    return [Shard(**row) for row in table.to_dicts()]


def read_shards(folder: Path) -> list[Shard]:
    """The shards that an artefact in this folder names."""
    # Every quick command asks for them; `read_table` would load pandas.
    return [Shard(**row) for row in pq.ParquetFile(folder / SHARDS_FILE).read().to_pylist()]


def live_shards(artefacts: Iterable[Path]) -> set[str]:
    """Keys of the shards, the readings and the bands of evaluation texts that artefacts need.

    Args:
        artefacts: Folders of the artefacts that are to stay, of any kind; those of cleaned texts name shards.

    Returns:
        Keys in the store, as garbage collection compares them.
    """
    artefacts = list(artefacts)
    folders = [folder for folder in artefacts if (folder / SHARDS_FILE).is_file()]
    evaluation = [folder / MANIFEST for folder in artefacts if (folder / EVALUATION_FILE).is_file()]
    # A reading has files of its own, which say what its shards are and what was dropped.
    return {key for folder in folders for shard in read_shards(folder) for key in (shard.key, shard.reading)} | {
        Manifest.read(manifest).digest for manifest in evaluation
    }
