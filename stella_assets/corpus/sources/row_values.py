"""What a row has at a dotted path: a text, several of a list, a number, or a word."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from stella_assets.corpus.sources.base import excerpt

EACH = "[]"
"""After the name of a column of lists: each element is a text of its own."""
ABSENT = object()


class NotTextError(ValueError):
    """A value is not a text."""

    def __init__(self, why: str, value: object) -> None:
        super().__init__(why)
        self.why, self.value = why, value


def stated(row: Mapping[str, Any], path: str, default: str, absent: list[str]) -> str:
    """What a row says under a path, or the default; a path that leads nowhere is added to `absent`."""
    value = _at(row, path)
    if value is ABSENT:
        absent.append(path)
        return default
    # Not `or`: the label 0 is a section.
    if value is None or value == "":
        return default
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def texts_at(row: Mapping[str, Any], path: str) -> list[str] | None:
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


def number_at(row: Mapping[str, Any], path: str) -> float:
    """The number at a path, which text files spell."""
    value = _at(row, path)
    try:
        number = math.nan if value is ABSENT or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        there = "missing" if value is ABSENT or value is None or value == "" else f"{excerpt(value)!r}"
        raise NotTextError(f"the score {path!r} is {there}, not a finite number", row)
    return number


def _require_text(value: Any, path: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return _decoded(value, path)
    hint = ""
    if EACH not in path and isinstance(value, list) and all(isinstance(part, str) for part in value):
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


def nothing_there(row: Mapping[str, Any], paths: Sequence[str]) -> str:
    """Why there is no text, and what is there instead: the keys at the last step that exists."""
    place, keys = "the row", list(row)
    inside: Any = row
    for name in paths[0].split(EACH)[0].split("."):
        if not isinstance(inside, Mapping) or name not in inside:
            break
        inside = inside[name]
        place, keys = repr(name), list(inside) if isinstance(inside, Mapping) else [type(inside).__name__]
    return f"no text under {' or '.join(map(repr, paths))}; {place} has {', '.join(map(str, keys))}"[:300]
