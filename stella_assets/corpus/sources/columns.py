"""From the columns of a row to its texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from stella_assets.core.config import ConfigModel
from stella_assets.corpus.errors import SourceError
from stella_assets.corpus.sources.base import Malformed, RawText, RowSource, excerpt

EACH = "[]"
"""After the name of a column of lists: each element is a text of its own."""
ABSENT = object()


class NotTextError(ValueError):
    """A value is not a text."""

    def __init__(self, why: str, value: object) -> None:
        super().__init__(why)
        self.why, self.value = why, value


class Columns(ConfigModel):
    """Which column of a row holds what: a name, or a dotted path into a nested column.

    Example:
        Of a source in a recipe::

            columns: {text: [title, body], section: meta.language, role: kind}

        Of a column of lists, `[]` makes each element a text of its own::

            columns: {text: "positives[]"}
    """

    text: tuple[str, ...] = Field(
        default=("text",),
        min_length=1,
        description="of the text; several are joined by a line break; `pos[]` takes each text of a list",
    )
    section: str | None = Field(default=None, description="of the section; the file's name when left out")
    licence: str | None = Field(default=None, description="of the licence; the source's `licence` when left out")
    role: str | None = Field(default=None, description="of the role, `document` or `query`; the source's when left out")

    @field_validator("text", mode="before")
    @classmethod
    def _accept_one(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("text")
    @classmethod
    def _require_one_list(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        if sum(path.count(EACH) for path in paths) > 1:
            raise ValueError(f"more than one `{EACH}`; of one list only each element can be a text")
        return paths

    def names(self) -> list[str]:
        """The top-level columns that are read."""
        paths = [*self.text, self.section, self.licence, self.role]
        # Readers of columnar files select top-level columns; `_at` descends into them.
        return list(dict.fromkeys(path.split(".")[0].removesuffix(EACH) for path in paths if path))

    def require(self, available: Sequence[str], place: Path | str, source: str) -> None:
        """Raise `SourceError` unless all columns are available."""
        missing = [name for name in self.names() if name not in available]
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
        try:
            value = row.get(self.text[0]) if len(self.text) == 1 else None
            # The usual case first, since this is done for every row.
            texts = [value] if isinstance(value, str) else list(self._texts(row, absent))
            role: str = source.role if self.role is None else _stated(row, self.role, "", absent)
            if role not in ("document", "query"):
                raise NotTextError(f"{self.role!r} is {role!r}, neither document nor query", "\n".join(texts))
        except NotTextError as problem:
            return [Malformed(origin, problem.why, excerpt(problem.value), lines=lines)]
        if self.section is not None:
            section = _stated(row, self.section, section, absent)
        licence = source.licence if self.licence is None else _stated(row, self.licence, source.licence, absent)
        if len(texts) == 1:
            return [RawText(texts[0], section, role, licence, origin, None, lines, tuple(absent))]
        # The lines of the row are counted once, with its first text.
        return [
            RawText(text, section, role, licence, f"{origin}[{at}]", None, 0 if at else lines, tuple(absent))
            for at, text in enumerate(texts)
        ]

    def _texts(self, row: Mapping[str, Any], absent: list[str]) -> Iterator[str]:
        """The texts of a row, the columns of each joined; paths that lead nowhere are added to `absent`."""
        columns = [_texts_at(row, path) for path in self.text]
        absent += [path for path, texts in zip(self.text, columns, strict=True) if texts is None]
        # A null counts as an empty text, which the rules drop; a missing column is a mistake in `columns` or the file.
        if len(absent) == len(self.text):
            raise NotTextError(_nothing_there(row, self.text), "")
        found = [texts for texts in columns if texts]
        for number in range(max(map(len, found), default=1)):
            yield "\n".join(texts[min(number, len(texts) - 1)] for texts in found)


def _stated(row: Mapping[str, Any], path: str, default: str, absent: list[str]) -> str:
    """What a row says under a path, or the default; a path that leads nowhere is added to `absent`."""
    value = _at(row, path)
    if value is ABSENT:
        absent.append(path)
        return default
    # Not `or`: the label 0 is a section.
    if value is None or value == "":
        return default
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _texts_at(row: Mapping[str, Any], path: str) -> list[str] | None:
    """The texts at a path: one, none for a null, several of a list; None where the path leads nowhere."""
    head, each, tail = path.partition(EACH)
    value = _at(row, head)
    if value is ABSENT:
        return None
    if value is None:
        return []
    if not each:
        return [_require_text(value, path)]
    if not isinstance(value, list):
        raise NotTextError(f"{head!r} is {type(value).__name__}, not a list", value)
    parts = [_at(part, tail.removeprefix(".")) if tail else part for part in value]
    return ["" if part is None or part is ABSENT else _require_text(part, path) for part in parts]


def _require_text(value: Any, path: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return _decoded(value, path)
    hint = ""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        hint = f"; `{path}{EACH}` takes each text of it"
    raise NotTextError(f"{path!r} is {type(value).__name__}, not text{hint}", value)


def _decoded(value: bytes, path: str) -> str:
    """Columnar files of other systems have texts as plain bytes."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        why = f"{path!r} is not utf-8: byte {error.start} is 0x{value[error.start]:02x}"
        raise NotTextError(why, value[:200]) from None


def _at(row: Any, path: str) -> Any:
    """The value at a dotted path, None for a null on the way, and `ABSENT` where the path leads nowhere."""
    # A name may have dots of its own.
    if isinstance(row, Mapping) and path in row:
        return row[path]
    for name in path.split("."):
        if row is None:
            return None
        if not isinstance(row, Mapping) or name not in row:
            return ABSENT
        row = row[name]
    return row


def _nothing_there(row: Mapping[str, Any], paths: Sequence[str]) -> str:
    """Why there is no text, and what is there instead: the keys at the last step that exists."""
    place, keys = "the row", list(row)
    inside: Any = row
    for name in paths[0].split(EACH)[0].split("."):
        if not isinstance(inside, Mapping) or name not in inside:
            break
        inside = inside[name]
        place, keys = repr(name), list(inside) if isinstance(inside, Mapping) else [type(inside).__name__]
    return f"no text under {' or '.join(map(repr, paths))}; {place} has {', '.join(map(str, keys))}"[:300]
