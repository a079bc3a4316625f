"""Values of DuckDB for JSON and CSV."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any


def unique_names(names: Sequence[str]) -> list[str]:
    """Names of columns, of which equal ones get a number: `a`, `a`, `a_1` become `a`, `a_2`, `a_1`."""
    found: list[str] = []
    for name in names:
        number, free = 1, name
        # A number that another column has by its own name is not given away.
        while free in found or (free != name and free in names):
            free, number = f"{name}_{number}", number + 1
        found.append(free)
    return found


def json_value(value: Any) -> Any:
    """A value as JSON has it: NaN and infinity become null; dates, times, decimals and UUIDs text; bytes hexadecimal.

    Args:
        value: Of DuckDB's Python client, also nested.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            return value.hex()
        # A key of JSON is text, and that of a map of DuckDB may be anything.
        case Mapping():
            return {_key(key): json_value(each) for key, each in value.items()}
        case list() | tuple():
            return [json_value(each) for each in value]
        case _:
            return str(value)


def csv_value(value: Any) -> str:
    """A value as one cell: empty for null, NaN and infinity, JSON for what is nested."""
    plain = json_value(value)
    match plain:
        case None:
            return ""
        case list() | dict():
            return json.dumps(plain, ensure_ascii=False)
        case _:
            return str(plain)


def _key(key: Any) -> str:
    return key if isinstance(key, str) else str(key)
