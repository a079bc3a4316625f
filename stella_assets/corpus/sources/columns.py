"""From the columns of a row to its texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from stella_assets.core.config import ConfigModel, doubled
from stella_assets.corpus.errors import SourceError
from stella_assets.corpus.sources.base import Malformed, RawText, Relation, RowSource, excerpt
from stella_assets.corpus.sources.row_values import EACH, NotTextError, nothing_there, number_at, stated, texts_at


def _is_empty(value: object) -> bool:
    return not value


def _column(path: str, available: Sequence[str]) -> str:
    """The top-level column that a path begins with: a name may have dots of its own."""
    return path if path in available else path.split(".", maxsplit=1)[0]


class Columns(ConfigModel):
    """Which column of a row holds what: a name, or a dotted path into a nested column.

    Example:
        Of a source in a recipe::

            columns: {text: [title, body], section: meta.language, role: kind}

        Of a column of lists, `[]` makes each element a text of its own::

            columns: {text: "positives[]"}

        Of pairs of a query and what answers it, or of two texts with a score::

            columns: {query: question, positive: answer, negatives: "others[]"}
            columns: {query: sentence1, positive: sentence2, score: similarity, symmetric: true}
    """

    text: tuple[str, ...] = Field(
        default=("text",),
        min_length=1,
        description="of the text; several are joined by a line break; `pos[]` takes each text of a list",
    )
    section: str | None = Field(default=None, description="of the section; the file's name when left out")
    licence: str | None = Field(default=None, description="of the licence; the source's `licence` when left out")
    role: str | None = Field(default=None, description="of the role, `document` or `query`; the source's when left out")
    # Left out where they are not given: a source of single texts has the identity that it had before there were pairs.
    query: str | None = Field(
        default=None, exclude_if=_is_empty, description="of the query of a pair, in place of `text`"
    )
    positive: str | None = Field(
        default=None, exclude_if=_is_empty, description="of what answers the query, or of the second text of a pair"
    )
    negatives: str | None = Field(
        default=None, exclude_if=_is_empty, description="of texts that do not answer the query, e.g. `negatives[]`"
    )
    score: str | None = Field(
        default=None, exclude_if=_is_empty, description="of a number: how similar the two texts of the pair are"
    )
    symmetric: bool = Field(
        default=False,
        exclude_if=_is_empty,
        description="whether both texts of a pair are of the source's role; else the first is a query",
    )

    @field_validator("text", mode="before")
    @classmethod
    def _accept_one(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("text", "positive", "negatives")
    @classmethod
    def _require_one_list(cls, paths: tuple[str, ...] | str | None) -> tuple[str, ...] | str | None:
        if "".join(paths or ()).count(EACH) > 1:
            raise ValueError(f"more than one `{EACH}`; of one list only each element can be a text")
        return paths

    @field_validator("query", "score", "section", "licence", "role")
    @classmethod
    def _require_no_list(cls, path: str | None) -> str | None:
        if EACH in (path or ""):
            raise ValueError(f"a row has one of it, and `{EACH}` takes each element of a list; name one value")
        return path

    @model_validator(mode="after")
    def _require_whole_pairs(self) -> Self:
        if bool(self.query) != bool(self.positive):
            raise ValueError("`query` and `positive` are the two columns of a pair; give both or none")
        if not self.query and (self.negatives or self.score or self.symmetric):
            raise ValueError("`negatives`, `score` and `symmetric` need `query` and `positive`")
        if self.query and ("text" in self.model_fields_set or self.role):
            raise ValueError("`text` and `role` are of single texts; leave them out next to `query` and `positive`")
        if self.score and self.negatives:
            raise ValueError("a pair has either a `score` or `negatives`; make two sources of them")
        return self

    def paths(self) -> list[str]:
        """The paths of all columns that are read, up to a list."""
        texts = (self.query, self.positive, self.negatives, self.score) if self.query else self.text
        paths = (*texts, self.section, self.licence, self.role)
        return list(dict.fromkeys(path.partition(EACH)[0] for path in paths if path))

    def names(self, available: Sequence[str]) -> list[str]:
        """The top-level columns that are read.

        Args:
            available: What a file or table has.

        Raises:
            ValueError: Two of these have the same name.
        """
        # Readers of columnar files select top-level columns; `_at` descends into them.
        names = list(dict.fromkeys(_column(path, available) for path in self.paths()))
        if twice := set(names) & set(doubled(available)):
            raise ValueError(f"two columns are named {min(twice)!r}; rename one of them")
        return names

    def missing_text(self, available: Sequence[str]) -> str:
        """What to say about a table that has no column of a text; "" where it has."""
        texts = [path.partition(EACH)[0] for path in ((self.query, self.positive) if self.query else self.text) if path]
        missing = [name for path in texts if (name := _column(path, available)) not in available]
        # Of several columns that are joined, some may be missing.
        if not missing or (not self.query and len(missing) < len(texts)):
            return ""
        return f"no column {missing[0]!r}; it has {', '.join(available)}"[:300]

    def require(self, available: Sequence[str], place: Path | str, source: str) -> None:
        """Raise `SourceError` unless all columns are available."""
        missing = [name for name in self.names(available) if name not in available]
        if missing:
            raise SourceError(
                f"{place}: no column {missing[0]!r}; it has {', '.join(available)}.",
                f"Set `columns` of source {source!r}.",
            )

    def texts_of(
        self, row: Mapping[str, Any], source: RowSource, section: str, origin: str, lines: int = 1
    ) -> list[RawText | Malformed]:
        """The texts of a row: one, or several of a list.

        Args:
            row: Values by column; columns that are not needed may be missing.
            source: Gives the role and the licence of rows that do not state their own.
            section: The section of rows that do not state their own.
            origin: Place of the row within the source.
            lines: Lines of the file that the row takes up.

        Returns:
            The texts, or what is wrong: no column of the text, a value that is not a text, or an unknown role.
        """
        absent: list[str] = []
        if self.query:
            return self._pair(row, source, section, origin, lines)
        try:
            value = row.get(self.text[0]) if len(self.text) == 1 else None
            # The usual case first, since this is done for every row.
            texts = [value] if isinstance(value, str) else list(self._texts(row, absent))
            role: str = source.role if self.role is None else stated(row, self.role, "", absent)
            if role not in ("document", "query"):
                raise NotTextError(f"{self.role!r} is {role!r}, neither document nor query", "\n".join(texts))
        except NotTextError as problem:
            return [Malformed(origin, problem.why, excerpt(problem.value), lines=lines)]
        if self.section is not None:
            section = stated(row, self.section, section, absent)
        licence = source.licence if self.licence is None else stated(row, self.licence, source.licence, absent)
        if len(texts) == 1:
            return [RawText(texts[0], section, role, licence, origin, None, lines, tuple(absent))]
        # The lines of the row are counted once, with its first text.
        return [
            RawText(text, section, role, licence, f"{origin}[{at}]", None, 0 if at else lines, tuple(absent))
            for at, text in enumerate(texts)
        ]

    def _pair(
        self, row: Mapping[str, Any], source: RowSource, section: str, origin: str, lines: int
    ) -> list[RawText | Malformed]:
        """The query of a row, and the texts that are related to it."""
        assert self.query is not None
        assert self.positive is not None
        absent: list[str] = []
        try:
            # A row without a query or a positive is a mistake in `columns` or the file; without negatives it is not.
            queries, positives = (self._required(row, path) for path in (self.query, self.positive))
            negatives = texts_at(row, self.negatives) if self.negatives else []
            score = None if self.score is None else number_at(row, self.score)
        except NotTextError as problem:
            return [Malformed(origin, problem.why, excerpt(problem.value), lines=lines)]
        if negatives is None:
            absent.append(str(self.negatives))
        section = section if self.section is None else stated(row, self.section, section, absent)
        licence = source.licence if self.licence is None else stated(row, self.licence, source.licence, absent)
        query = queries[0]
        role = source.role if self.symmetric else "query"
        texts: list[RawText | Malformed] = [RawText(query, section, role, licence, origin, None, lines, tuple(absent))]
        # A positive goes to the split of its query. A negative may answer another query, and stays where it is: else
        # the negatives would join all pairs into one group.
        for text in positives:
            related = Relation(query, score=score)
            texts.append(RawText(text, section, source.role, licence, origin, query or None, 0, tuple(absent), related))
        for text in negatives or ():
            related = Relation(query, negative=True)
            texts.append(RawText(text, section, source.role, licence, origin, None, 0, tuple(absent), related))
        return texts

    @staticmethod
    def _required(row: Mapping[str, Any], path: str) -> list[str]:
        """The texts at a path, one empty text for a null."""
        found = texts_at(row, path)
        if found is None:
            raise NotTextError(nothing_there(row, (path,)), "")
        return found or [""]

    def _texts(self, row: Mapping[str, Any], absent: list[str]) -> Iterator[str]:
        """The texts of a row, the columns of each joined; paths that lead nowhere are added to `absent`."""
        columns = [texts_at(row, path) for path in self.text]
        absent += [path for path, texts in zip(self.text, columns, strict=True) if texts is None]
        # A null counts as an empty text, which the rules drop; a missing column is a mistake in `columns` or the file.
        if len(absent) == len(self.text):
            raise NotTextError(nothing_there(row, self.text), "")
        found = [texts for texts in columns if texts]
        for number in range(max(map(len, found), default=1)):
            yield "\n".join(texts[min(number, len(texts) - 1)] for texts in found)


class ColumnSource(RowSource):
    """A source of rows whose columns the recipe maps."""

    columns: Columns = Field(default=Columns(), description="which column holds what")

    @property
    def gives_pairs(self) -> bool:
        """Whether its rows or its rule make pairs."""
        return self.columns.query is not None or super().gives_pairs
