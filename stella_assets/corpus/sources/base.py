"""What every kind of source has: its settings, the parts that it is read in, and the rows that reading gives."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field

from stella_assets.core.config import Fraction, Name, PathAware, Positive
from stella_assets.core.data import Role
from stella_assets.core.registry import Registry
from stella_assets.corpus.errors import SourceError
from stella_assets.corpus.pair_rules import RuleName, divide
from stella_assets.storage.canonical import digest

EXCERPT_CHARS = 120
"""Characters of a text that tables and messages show."""


@dataclass(frozen=True)
class Relation:
    """How a text is related to a query.

    Attributes:
        query: The query's text, which the source gives as a text of its own as well.
        negative: Whether the text does not answer the query.
        score: How similar the two are, in the source's units; None where the text simply answers the query.
    """

    query: str
    negative: bool = False
    score: float | None = None


@dataclass(frozen=True)
class RawText:
    """A text as a source gives it.

    Attributes:
        text: As read, not normalised.
        section: Part of the source: a package, a file, a subset. It is the label of the classification task.
        role: `document` or `query`.
        licence: SPDX expression or plain words.
        origin: Place within the source, for people.
        parent: The text that this one was taken from; both go to the same split.
        lines: Lines of the file that it takes up.
        absent: Columns that the recipe names and its row does not have.
        related: To which query, and how; None for a text by itself.
    """

    text: str
    section: str
    role: str
    licence: str
    origin: str
    parent: str | None = None
    lines: int = 1
    absent: tuple[str, ...] = ()
    related: Relation | None = None


@dataclass(frozen=True)
class Malformed:
    """A row of a source that is not a text, or a file that breaks off.

    Attributes:
        origin: Place within the source, for people.
        why: What is wrong with it.
        excerpt: How it begins.
        whole_file: Whether the rest of the file is lost, too.
        lines: Lines of the file that it takes up.
    """

    origin: str
    why: str
    excerpt: str = ""
    whole_file: bool = False
    lines: int = 1


Rows = Iterator[RawText | Malformed]
FIRST_ROWS = 100
"""Rows of a part, or of each file, that are read before a run."""


@dataclass(frozen=True)
class Preview:
    """What the first rows of a source show.

    Attributes:
        rows: How many were read.
        lines: Lines of files that they take up.
        malformed: How many of them are malformed.
        first_malformed: The place of the first of these, and what is wrong with it.
        example: How the first text begins.
        absent: Columns that the recipe names and none of the rows has.
        remarks: What people should know, as sentences.
    """

    rows: int = 0
    lines: int = 0
    malformed: int = 0
    first_malformed: str = ""
    example: str = ""
    absent: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: Iterable[RawText | Malformed], name: str, limit: float | None) -> Preview:
        """The preview of some rows, none of which is kept: a source can have many files.

        Args:
            rows: The first ones.
            name: Of the source.
            limit: Share of all rows that may be malformed; None for a kind that has no malformed rows.
        """
        count = lines = malformed = 0
        example = wrong = ""
        absent: tuple[str, ...] | None = None
        for row in rows:
            count, lines = count + 1, lines + row.lines
            if isinstance(row, Malformed):
                malformed += 1
                wrong = wrong or f"{row.origin}: {row.why}"
            else:
                example = example or excerpt(row.text)
                absent = row.absent if absent is None else tuple(each for each in absent if each in row.absent)
        said = f"{malformed} of them malformed, e.g. {wrong}" if malformed else ""
        if limit is not None and malformed > limit * count:
            said += f"; a run stops if more than {limit:.2%} of all rows are"
        remarks = tuple(filter(None, (said, shrink(name, count, lines))))
        return cls(count, lines, malformed, wrong, example, absent or (), remarks)


def shrink(name: str, rows: int, lines: int) -> str:
    """What to say about a source that has fewer rows than lines; "" where it has not."""
    if lines <= rows:
        return ""
    return (
        f"source {name!r}: {lines:,} lines are {rows:,} rows, since fields in quotation marks go over several lines; "
        "if they should not, set `quoting: none`"
    )


@dataclass(frozen=True)
class SourcePart:
    """A part of a source that is read as a whole, and again only after it has changed.

    Attributes:
        digest: Of the content: bytes of files, versions of packages and tables, commits of data sets.
        paths: Its files; empty for a source that does not consist of files.
    """

    digest: str
    paths: tuple[Path, ...] = ()


class SourceConfig(PathAware):
    """A source of texts. When two sources have the same text, the earlier source keeps it.

    A kind of source is a subclass with `kind: Literal["its name"]`, registered with `SOURCES.register`. It reads its
    texts in an order that does not depend on the machine, and imports large libraries inside its methods.

    Example:
        >>> @SOURCES.register
        ... class Greetings(SourceConfig):
        ...     '''The same greeting, several times.'''
        ...
        ...     kind: Literal["greetings"]
        ...     count: int = Field(description="how many")
        ...
        ...     def parts(self):
        ...         return [SourcePart(digest(self.count))]
        ...
        ...     def read(self, part):
        ...         for number in range(self.count):
        ...             yield RawText(f"Hello, reader {number}.", "greetings", "document", self.licence, str(number))
        ...
        ...     def check(self):
        ...         pass
    """

    name: Name = Field(description="of the source, in the table of texts and in messages")
    licence: str = Field(description="SPDX expression or plain words, for texts that do not state their own")
    weight: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="share of the texts that is taken, chosen by hash"
    )
    limit: Positive | None = Field(default=None, description="texts kept at most: those with the smallest hash")
    # Left out of the settings where it is not given: a source without it has the identity that it had before.
    pairs: RuleName | None = Field(
        default=None,
        exclude_if=lambda rule: rule is None,
        description="divide each document into a query and what answers it: `question`, a first line or sentence that "
        "asks, and the rest; `first_line`, a title and the rest; `first_sentence` and the rest",
    )

    @property
    def gives_pairs(self) -> bool:
        """Whether some of its texts are related to a query."""
        return self.pairs is not None

    @abstractmethod
    def parts(self) -> list[SourcePart]:
        """The parts of the source and what they hold now.

        Returns:
            Parts in an order that does not depend on the machine. Equal digests promise equal rows.

        Raises:
            SourceError: The source is not there or cannot be asked.
        """

    @abstractmethod
    def read(self, part: SourcePart) -> Rows:
        """The texts of a part and what is malformed in it, in an order that does not depend on the machine.

        Args:
            part: One of `parts()`, of the pinned source.

        Yields:
            A `RawText` per text and a `Malformed` per row or file that is not one. Reading goes on after a malformed
            row, so that `max_malformed` can be compared with the whole.
        """

    def holds(self, part: SourcePart) -> bool:
        """Whether the source still has a part as its digest describes it, after it was read."""
        return True

    def texts(self, part: SourcePart) -> Rows:
        """What `read` gives, with documents divided as `pairs` says; one that cannot be divided stays whole.

        Args:
            part: As for `read`.
        """
        for item in self.read(part):
            parts = None
            if self.pairs and isinstance(item, RawText) and not item.related and item.role == "document":
                parts = divide(item.text, self.pairs)
            if parts and isinstance(item, RawText):
                query, rest = parts
                # In place of the whole document, which would be a near copy of its rest. Lines are counted once.
                yield replace(item, text=query, role="query")
                yield replace(item, text=rest, parent=query, lines=0, related=Relation(query))
            else:
                yield item

    @abstractmethod
    def check(self) -> None:
        """Find out cheaply whether the source can be read.

        Raises:
            SourceError: It cannot; the message names the place and the remedy.
        """

    def preview(self) -> Preview:
        """Check the source and read its first rows, with the reader that a run uses.

        Raises:
            SourceError: It cannot be read, or as for `require_texts`; the message names the place and the remedy.
        """
        self.check()
        source = self.pinned()
        rows = islice(chain.from_iterable(map(source.read, source.parts())), FIRST_ROWS)
        preview = Preview.of(rows, self.name, self.malformed_limit())
        self.require_texts(preview, complete=preview.rows < FIRST_ROWS)
        return preview

    def require_texts(self, preview: Preview, *, complete: bool) -> None:
        """Raise an error if the first rows show that a run would fail or use nothing.

        Args:
            preview: Of the first rows.
            complete: Whether these are all rows.

        Raises:
            SourceError: There is no row, or the kind of source has reasons of its own.
        """
        if not preview.rows:
            raise SourceError(f"{self.described()} has no rows.", "Correct it, or remove it.")

    def described(self) -> str:
        """How messages name it: by its place, if it has one, and its name."""
        return f"source {self.name!r}"

    def pinned(self) -> Self:
        """The source at the very version that the digests of its parts describe."""
        return self

    def reading_settings(self) -> dict[str, Any]:
        """The settings that decide which rows reading gives. They are part of the identity of what was read."""
        # Weight and limit choose among rows that were read; with them in the key, changing one would read all again.
        return self.settings("weight", "limit")

    def malformed_limit(self) -> float | None:
        """Share of rows, and of files, that may be malformed; None for a kind that has no malformed rows."""
        return None

    def hub_datasets(self) -> list[str]:
        """The data sets of the Hugging Face hub that it reads, for the model card."""
        return []

    def content_digest(self) -> str:
        """What the source holds now."""
        # Sorted: the digest says what is there, and not in which order it is read.
        return digest(sorted(part.digest for part in self.parts()))


SOURCES: Registry[SourceConfig] = Registry("source")


class RowSource(SourceConfig):
    """A source of rows from outside, of which some may be malformed."""

    role: Role = Field(default="document", description="of texts that do not state their own: `document` or `query`")
    max_malformed: Fraction = Field(default=0.01, description="share of rows, and of files, that may be malformed")

    def require_texts(self, preview: Preview, *, complete: bool) -> None:
        """As for every source.

        Raises:
            SourceError: There is no row, or more are malformed than the recipe allows, or no row has a text or a
                column that the recipe names.
        """
        super().require_texts(preview, complete=complete)
        texts = preview.rows - preview.malformed
        # Of the rest nothing is known, except where the first rows are hardly rows of this kind at all.
        if preview.malformed > self.max_malformed * preview.rows and (complete or preview.malformed > texts):
            raise SourceError(
                f"{self.described()}: {preview.malformed:,} of the first {preview.rows:,} rows are malformed, the "
                f"recipe allows {self.max_malformed:.2%}; the first is {preview.first_malformed}.",
                f"Correct the data or {self._keys()}, or raise `max_malformed`.",
            )
        # A mistake in the name of a column gives every row the same licence or section without a word.
        for name in preview.absent:
            raise SourceError(
                f"{self.described()}: none of the first {texts:,} rows has {name!r}.", "Correct `columns`."
            )
        if texts and not preview.example:
            raise SourceError(
                f"{self.described()}: the first {texts:,} rows are all empty.", f"Correct {self._keys()}."
            )

    def _keys(self) -> str:
        """The keys that decide what is read and how."""
        keys = [f"`{key}`" for key in ("columns", "encoding", "kind", "path") if key in type(self).model_fields]
        return f"{', '.join(keys[:-1])} or {keys[-1]}"

    def reading_settings(self) -> dict[str, Any]:
        """All settings but the choice among the rows and the tolerance."""
        return self.settings("weight", "limit", "max_malformed")

    def malformed_limit(self) -> float | None:
        """`max_malformed`."""
        return self.max_malformed


def excerpt(value: object) -> str:
    """The beginning of a value, on one line."""
    # Cut before splitting: a malformed value can be many megabytes long.
    return " ".join(str(value)[: 2 * EXCERPT_CHARS].split())[:EXCERPT_CHARS]


def unreadable(error: Exception) -> str:
    """Why something cannot be read, in one line."""
    return f"cannot be read: {' '.join(str(error).split())[:300].rstrip('.')}"
