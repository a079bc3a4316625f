"""From the columns of a row to a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from stella_assets.core.config import ConfigModel
from stella_assets.corpus.errors import SourceError
from stella_assets.corpus.sources.base import Malformed, RawText, RowSource, excerpt


class Columns(ConfigModel):
    """Which column of a row holds what: a name, or a dotted path into a nested column.

    Example:
        Of a source in a recipe::

            columns: {text: [title, body], section: meta.language, role: kind}
    """

    text: tuple[str, ...] = Field(
        default=("text",), min_length=1, description="of the text; several are joined by a line break"
    )
    section: str | None = Field(default=None, description="of the section; the file's name when left out")
    licence: str | None = Field(default=None, description="of the licence; the source's `licence` when left out")
    role: str | None = Field(default=None, description="of the role, `document` or `query`; the source's when left out")

    @field_validator("text", mode="before")
    @classmethod
    def _accept_one(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    def names(self) -> list[str]:
        """The top-level columns that are read."""
        paths = [*self.text, self.section, self.licence, self.role]
        # Readers of columnar files select top-level columns; `_at` descends into them.
        return list(dict.fromkeys(path.split(".")[0] for path in paths if path))

    def require(self, available: Sequence[str], place: Path | str, source: str) -> None:
        """Raise `SourceError` unless all columns are available."""
        missing = [name for name in self.names() if name not in available]
        if missing:
            raise SourceError(
                f"{place}: no column {missing[0]!r}; it has {', '.join(available)}.",
                f"Set `columns` of source {source!r}.",
            )

    def text_of(self, row: Mapping[str, Any], source: RowSource, section: str, origin: str) -> RawText | Malformed:
        """The text of a row.

        Args:
            row: Values by column; columns that are not needed may be missing.
            source: Gives the role and the licence of rows that do not state their own.
            section: The section of rows that do not state their own.
            origin: Place of the row within the source.

        Returns:
            The text, or what is wrong: no column of the text, a value that is not a text, or an unknown role.
        """
        parts = []
        for path in self.text:
            value = _at(row, path)
            if value is None:
                continue
            if not isinstance(value, str):
                return Malformed(origin, f"{path!r} is {type(value).__name__}, not text", excerpt(value))
            parts.append(value)
        # A null counts as an empty text, which the rules drop; a missing column is a mistake in `columns` or the file.
        if not parts and not any(path.split(".")[0] in row for path in self.text):
            keys = ", ".join(map(str, row))
            return Malformed(origin, f"no text under {' or '.join(map(repr, self.text))}; the row has {keys}"[:300])
        role: str = source.role
        if self.role:
            stated = _at(row, self.role)
            if stated not in ("document", "query"):
                why = f"{self.role!r} is {stated!r}, neither document nor query"
                return Malformed(origin, why, excerpt("\n".join(parts)))
            role = stated
        own = [_at(row, path) if path else None for path in (self.section, self.licence)]
        return RawText("\n".join(parts), str(own[0] or section), role, str(own[1] or source.licence), origin)


def _at(row: Any, path: str) -> Any:
    """The value at a dotted path; None where the path leads nowhere."""
    for name in path.split("."):
        row = row.get(name) if isinstance(row, Mapping) else None
    return row
