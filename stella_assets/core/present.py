"""What a step shows of its artefact, without a word about who shows it: the Dagster side turns it into metadata."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Picture:
    """A PNG, with words for those who cannot see it."""

    png: bytes
    alt: str


@dataclass(frozen=True)
class Rows:
    """Rows of equal keys, shown as a table."""

    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Markdown:
    """Text with markup."""

    text: str


@dataclass(frozen=True)
class Schema:
    """Columns of a table: name and type."""

    columns: Sequence[tuple[str, str]]


Shown = Picture | Rows | Markdown | Schema | Path | int | float | str


def shown_time(written: str) -> str:
    """A time in UTC, as manifests and records hold it, for people."""
    return written.replace("T", " ").removesuffix("+00:00")


def counted(count: int, noun: str) -> str:
    """A count with its noun, e.g. `1 source` and `3,000 sources`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def data_uri(png: bytes) -> str:
    """A PNG as a URI that HTML and Markdown can hold."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def html_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in HTML, escaped."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
