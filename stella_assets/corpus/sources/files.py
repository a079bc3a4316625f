"""Sources that consist of files: which files, their digests, and a first look at each."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from itertools import islice
from lzma import LZMAError
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from stella_assets.corpus.errors import SourceError
from stella_assets.corpus.sources.base import (
    FIRST_ROWS,
    SOURCES,
    Malformed,
    Preview,
    RawText,
    Rows,
    RowSource,
    SourcePart,
    unreadable,
)
from stella_assets.corpus.sources.encoded import NAMES
from stella_assets.corpus.sources.listing import files_in, files_like
from stella_assets.storage.canonical import digest
from stella_assets.storage.files import file_digest_unless_changed

READING_VERSION = 3
"""Raised when the same files give other rows, so that they are read again."""
OWN_PART_BYTES = 8 * 2**20
"""A file of this size is a part of its own."""


class FileSource(RowSource):
    """Files by path or glob, or a folder with all files of the kind in it.

    Attributes:
        suffixes: Of the kind's files, which are looked for in a folder, in lower case.
        unreadable: What the kind's library raises about the content of a file. The file counts as malformed then.
    """

    suffixes: ClassVar[tuple[str, ...]]
    unreadable: ClassVar[tuple[type[Exception], ...]] = (OSError, ValueError, EOFError, LZMAError)

    path: str = Field(min_length=1, description="a file, a glob, or a folder; a relative path counts from the recipe")

    @abstractmethod
    def rows(self, path: Path, section: str) -> Rows:
        """The rows of one file.

        Args:
            path: One of `files()`.
            section: The file's name without suffixes, for rows that do not state their section.

        Yields:
            Texts and malformed rows in the order of the file. An error in `unreadable` ends the file.
        """

    @classmethod
    def endings(cls) -> list[str]:
        """How the names of the kind's files end, compressed ones as well."""
        return [suffix + packed for suffix in cls.suffixes for packed in ("", *NAMES)]

    @classmethod
    def reads(cls, path: Path) -> bool:
        """Whether the name of a file is one of the kind's."""
        return path.name.lower().endswith(tuple(cls.endings()))

    def files(self) -> list[Path]:
        """The files, in the order of their names.

        Raises:
            SourceError: No file matches, or one of them is a link to nothing or has a name that is not UTF-8.
        """
        place = self.resolve(self.path)
        suffixes = self.endings()
        try:
            # A name that exists is not a pattern, whatever characters it has.
            if place.is_file():
                paths = [place]
            elif place.is_dir():
                paths = files_in(place, suffixes)
            else:
                paths = files_like(self.path, self.resolve("."))
            missing = [path for path in paths if not path.is_file()]
        except (OSError, ValueError) as error:
            raise SourceError(f"{place}: source {self.name!r} cannot be listed ({error}).", "Correct `path`.") from None
        if foreign := [path for path in paths if not _is_utf8(path)]:
            raise SourceError(
                f"{os.fsencode(foreign[0]).decode(errors='replace')}: source {self.name!r}: the name is not UTF-8.",
                "Rename it.",
            )
        if missing:
            raise SourceError(
                f"{missing[0]}: source {self.name!r}: this is a link to nothing, or not a file.",
                "Remove it, or correct what it leads to.",
            )
        if not paths and place.is_dir():
            raise SourceError(
                f"{place}: source {self.name!r}: the folder has no file that ends in {', '.join(suffixes)}.",
                "Correct `path` or `kind`, or name other files with a glob.",
            )
        if not paths:
            raise SourceError(
                f"{place}: source {self.name!r} matches no file.",
                "Correct `path`; a relative path counts from the recipe.",
            )
        return paths

    def described(self) -> str:
        """With the path."""
        return f"{self.resolve(self.path)}: {super().described()}"

    def parts(self) -> list[SourcePart]:
        """Each large file, and groups of small files: a file that is added changes one group only."""
        groups: dict[str, list[Path]] = {}
        for path in self.files():
            alone = path.stat().st_size >= OWN_PART_BYTES
            # Small files go into 256 groups by the hash of their name: a new file leaves the other groups unread.
            groups.setdefault(str(path) if alone else digest(path.name)[:2], []).append(path)
        return [SourcePart(_digest_of(paths), tuple(paths)) for _, paths in sorted(groups.items())]

    def holds(self, part: SourcePart) -> bool:
        """Whether its files are as they were: somebody may write one of them while it is read."""
        try:
            return _digest_of(part.paths) == part.digest
        except FileNotFoundError:
            return False

    def read(self, part: SourcePart) -> Rows:
        """The rows of each file of the part."""
        for path in part.paths:
            yield from self.read_file(path)

    def read_file(self, path: Path) -> Rows:
        """The rows of a file. Where the file breaks off, the last one says so."""
        packed = path.suffix.lower() in NAMES
        section = (path.stem if packed else path.name).rsplit(".", 1)[0]
        try:
            yield from self.rows(path, section)
        # Rows before the break stay, e.g. of a truncated archive; `max_malformed` limits how many files may break.
        except self.unreadable as error:
            yield Malformed(path.name, unreadable(error), whole_file=True)

    def check(self) -> None:
        """Look at the first rows of each file.

        Raises:
            SourceError: As for `preview`.
        """
        self.preview()

    def preview(self) -> Preview:
        """Look at the first rows of each file.

        Raises:
            SourceError: No file matches, more files than `max_malformed` allows break off or have no text in their
                first rows, or as for `require_texts`.
        """
        paths, errors, complete = self.files(), [], True

        def first() -> Rows:
            nonlocal complete
            for path in paths:
                rows = list(islice(self.read_file(path), FIRST_ROWS))
                complete &= len(rows) < FIRST_ROWS
                if error := self._first_error(path, rows):
                    errors.append(error)
                yield from rows

        preview = Preview.of(first(), self.name, self.max_malformed)
        # The tolerance of the run holds for the check: one bad file among many must not stop a recipe.
        if len(errors) > self.max_malformed * len(paths):
            raise errors[0]
        self.require_texts(preview, complete=complete)
        return preview

    def _first_error(self, path: Path, first: Sequence[RawText | Malformed]) -> SourceError | None:
        """What is wrong with a file that breaks off in its first rows, or has no text in them at all."""
        malformed = [row for row in first if isinstance(row, Malformed)]
        # A wrong column, encoding or kind spoils all rows; single bad rows are counted during the run.
        if malformed and (malformed[-1].whole_file or len(malformed) == len(first)):
            wrong = malformed[-1] if malformed[-1].whole_file else malformed[0]
            return SourceError(
                f"{path.parent / wrong.origin}: {wrong.why}.",
                f"Correct the file, or {self._keys()} of source {self.name!r}.",
            )
        return None

    def reading_settings(self) -> dict[str, Any]:
        """All settings but `path`: files that are moved are not read again."""
        return self.settings("weight", "limit", "max_malformed", "path")


class EncodedFileSource(FileSource):
    """Files of encoded text, also compressed."""

    encoding: str = Field(
        default="utf-8",
        description="a name that Python knows, e.g. `cp1252`; a byte order mark wins; UTF-16 and UTF-32 are recognised",
    )

    def preview(self) -> Preview:
        """Check the encoding and look at the files.

        Raises:
            SourceError: Python does not know the encoding, or the files cannot be read.
        """
        try:
            "".encode(self.encoding)
        # Codecs that make bytes of bytes, e.g. `hex`, raise the first, and names with a zero byte the second.
        except (LookupError, ValueError):
            raise SourceError(
                f"source {self.name!r}: there is no encoding {self.encoding!r}.",
                "Set `encoding`, e.g. to utf-8 or cp1252.",
            ) from None
        return super().preview()


def _digest_of(paths: Sequence[Path]) -> str:
    # Names and contents, no folders: a moved file keeps its digest.
    return digest([READING_VERSION, sorted([path.name, file_digest_unless_changed(path)] for path in paths)])


def _is_utf8(path: Path) -> bool:
    # Bytes of another encoding are half surrogates in a path; Arrow opens no such file, and no digest can be made.
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def kind_of_files(place: Path) -> type[FileSource]:
    """The kind of source that reads a file, or all files in a folder, by the ends of their names.

    Args:
        place: The file or folder.

    Raises:
        SourceError: It does not exist, no kind reads it, or a folder has files of several kinds.
    """
    if not place.exists():
        raise SourceError(f"{place}: there is no such file or folder.", "Correct the path.")
    kinds = [kind for kind in SOURCES if issubclass(kind, FileSource)]
    found = [kind for kind in kinds if (files_in(place, kind.endings()) if place.is_dir() else kind.reads(place))]
    if len(found) == 1:
        return found[0]
    said = "has files of several kinds of sources" if found else "is read by no kind of source"
    known = ", ".join(suffix for kind in kinds for suffix in kind.suffixes)
    raise SourceError(f"{place}: {said}.", f"Name a file, or a folder of files, that end in one of {known}.")
