"""Sources that consist of files: which files, their digests, and a first look at each."""

from __future__ import annotations

import codecs
import glob
from abc import abstractmethod
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from stella_assets.core.manifest import digest
from stella_assets.corpus.errors import SourceError
from stella_assets.corpus.sources.base import Malformed, Rows, RowSource, SourcePart
from storage.files import file_digest_unless_changed

FIRST_ROWS = 100
"""Rows of each file that a check reads."""
OWN_PART_BYTES = 8 * 2**20
"""A file of this size is a part of its own."""
COMPRESSED = ("", ".gz", ".zst")


class FileSource(RowSource):
    """Files by path or glob, or a folder with all files of the kind in it.

    Attributes:
        suffixes: Of the kind's files, which are looked for in a folder.
        unreadable: What the kind's library raises about the content of a file. The file counts as malformed then.
    """

    suffixes: ClassVar[tuple[str, ...]]
    unreadable: ClassVar[tuple[type[Exception], ...]] = (OSError, ValueError)

    path: str = Field(description="a file, a glob, or a folder; a relative path counts from the recipe")

    @abstractmethod
    def rows(self, path: Path, section: str) -> Rows:
        """The rows of one file.

        Args:
            path: One of `files()`.
            section: The file's name without suffixes, for rows that do not state their section.

        Yields:
            Texts and malformed rows in the order of the file. An error in `unreadable` ends the file.
        """

    def files(self) -> list[Path]:
        """The files, in the order of their names.

        Raises:
            SourceError: No file matches.
        """
        place = self.resolve(self.path)
        if place.is_dir():
            suffixes = tuple(suffix + packed for suffix in self.suffixes for packed in COMPRESSED)
            # Sorted: file systems list folders in different orders.
            paths = sorted(path for path in place.rglob("*") if path.is_file() and path.name.endswith(suffixes))
            if not paths:
                raise SourceError(
                    f"{place}: source {self.name!r}: the folder has no file that ends in {', '.join(suffixes)}.",
                    "Correct `path` or `kind`, or name other files with a glob.",
                )
            return paths
        found = glob.glob(str(place), recursive=True)  # noqa: PTH207 (a pattern may be absolute)
        paths = sorted(Path(name) for name in found if Path(name).is_file())
        if not paths:
            raise SourceError(
                f"{place}: source {self.name!r} matches no file.",
                "Correct `path`; a relative path counts from the recipe.",
            )
        return paths

    def parts(self) -> list[SourcePart]:
        """Each large file, and groups of small files: a file that is added changes one group only."""
        groups: dict[str, list[Path]] = {}
        for path in self.files():
            alone = path.stat().st_size >= OWN_PART_BYTES
            # Small files go into 256 groups by the hash of their name: a new file leaves the other groups unread.
            groups.setdefault(str(path) if alone else digest(path.name)[:2], []).append(path)
        return [
            # Names and contents, no folders: a moved file keeps its digest.
            SourcePart(digest(sorted([path.name, file_digest_unless_changed(path)] for path in paths)), tuple(paths))
            for _, paths in sorted(groups.items())
        ]

    def read(self, part: SourcePart) -> Rows:
        """The rows of each file of the part."""
        for path in part.paths:
            yield from self.read_file(path)

    def read_file(self, path: Path) -> Rows:
        """The rows of a file. Where the file breaks off, the last one says so."""
        section = path.name.removesuffix(".gz").removesuffix(".zst").rsplit(".", 1)[0]
        try:
            yield from self.rows(path, section)
        # Rows before the break stay, e.g. of a truncated archive; `max_malformed` limits how many files may break.
        except self.unreadable as error:
            yield Malformed(path.name, f"cannot be read: {' '.join(str(error).split())[:300]}", whole_file=True)

    def check(self) -> None:
        """Look at the first rows of each file.

        Raises:
            SourceError: No file matches, or more files than `max_malformed` allows have no text in their first rows.
        """
        paths = self.files()
        # The tolerance of the run holds for the check: one bad file among many must not stop a recipe.
        errors = [error for path in paths if (error := self.first_error(path))]
        if len(errors) > self.max_malformed * len(paths):
            raise errors[0]

    def first_error(self, path: Path) -> SourceError | None:
        """What is wrong with a file whose first rows have no text at all."""
        first = list(islice(self.read_file(path), FIRST_ROWS))
        malformed = [row for row in first if isinstance(row, Malformed)]
        # A wrong column, encoding or kind spoils all rows; single bad rows are counted during the run.
        if not first or len(malformed) < len(first):
            return None
        return SourceError(
            f"{path.parent / malformed[0].origin}: {malformed[0].why}.",
            f"Correct the file, or `columns`, `encoding`, `kind` or `path` of source {self.name!r}.",
        )

    def reading_settings(self) -> dict[str, Any]:
        """All settings but `path`: files that are moved are not read again."""
        return self.settings("weight", "limit", "max_malformed", "path")


class EncodedFileSource(FileSource):
    """Files of encoded text, also compressed with gzip or zstd."""

    encoding: str = Field(default="utf-8", description="a name that Python knows, e.g. `cp1252`")

    def check(self) -> None:
        """Check the encoding and the files.

        Raises:
            SourceError: Python does not know the encoding, or the files cannot be read.
        """
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise SourceError(
                f"source {self.name!r}: there is no encoding {self.encoding!r}.",
                "Set `encoding`, e.g. to utf-8 or cp1252.",
            ) from None
        super().check()
