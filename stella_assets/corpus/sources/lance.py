"""Source kind `lance`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from stella_assets.core.config import Positive
from stella_assets.corpus.errors import SourceError
from stella_assets.corpus.sources.base import SOURCES, Rows, SourcePart
from stella_assets.corpus.sources.batches import texts_of_piece
from stella_assets.corpus.sources.columns import ColumnSource
from stella_assets.storage.canonical import digest

READING_VERSION = 2
"""Raised when the same table gives other rows, so that it is read again."""


@SOURCES.register
class LanceTable(ColumnSource):
    """A table in the Lance format, at one version.

    Example:
        Of `corpus.sources` in a recipe::

            {name: notes, kind: lance, path: notes.lance, version: 3, licence: CC0-1.0, columns: {text: note}}
    """

    kind: Literal["lance"]
    path: str = Field(description="the table's folder; a relative path counts from the recipe")
    version: Positive | None = Field(
        default=None, description="the newest when left out; the manifest says which it was"
    )

    def described(self) -> str:
        """With the path."""
        return f"{self.resolve(self.path)}: {super().described()}"

    def parts(self) -> list[SourcePart]:
        """The table as a whole."""
        return [SourcePart(digest([READING_VERSION, *self._identity()]))]

    def pinned(self) -> Self:
        """The source at the version that the table has now."""
        return self.with_values(version=self._identity()[1])

    def read(self, part: SourcePart) -> Rows:
        """The rows of the table."""
        import lance

        dataset = lance.dataset(str(self.resolve(self.path)), version=self.version)
        names = dataset.schema.names
        columns = [name for name in self.columns.names(names) if name in names]
        section = Path(self.path).name.removesuffix(".lance")
        start = 0
        for fragment in dataset.get_fragments():
            rows = fragment.count_rows()
            yield from texts_of_piece(
                fragment.to_batches(columns=columns), rows, self.columns, self, section, section, start
            )
            start += rows

    def check(self) -> None:
        """Check that the table, the version and the columns exist.

        Raises:
            SourceError: One of them does not.
        """
        self._identity()

    def _identity(self) -> tuple[str, int]:
        """Digest of the names of the data files, which are never overwritten, and the version."""
        import lance

        place = self.resolve(self.path)
        try:
            dataset = lance.dataset(str(place), version=self.version)
        except (ValueError, OSError) as error:
            raise SourceError(
                f"{place}: source {self.name!r}: no Lance table, or not at version {self.version or 'newest'} "
                f"({' '.join(str(error).split())[:200]}).",
                "Correct `path` or `version`.",
            ) from None
        self.columns.require(dataset.schema.names, place, self.name)
        # The version alone is not enough: a table that was deleted and made anew counts from 1 again.
        fragments = [file.path for fragment in dataset.get_fragments() for file in fragment.data_files()]
        return digest(fragments), int(dataset.version)
