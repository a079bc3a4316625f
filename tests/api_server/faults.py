"""What a stand-in does wrong, for one request."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Rows = list[tuple[int, np.ndarray]]
"""Index and vector of each row of an answer."""


@dataclass(frozen=True)
class Fault:
    """One request's fault.

    Attributes:
        status: Of the answer; 200 where its content is what is wrong.
        headers: In addition.
        message: Of an error.
        code: Of an error.
        body: In place of the protocol's own form of an error, or of an answer.
        delay: Seconds before the answer.
        cut: Whether the connection ends in the middle of the answer.
        spoil: What is done to the rows of the answer; see `SPOILS`.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "a scripted fault"
    code: str = ""
    body: str | None = None
    delay: float = 0.0
    cut: bool = False
    spoil: str = ""


def _nan(rows: Rows) -> Rows:
    (index, vector), *others = rows
    return [(index, np.full_like(vector, np.nan)), *others]


SPOILS: dict[str, Callable[[Rows], Rows]] = {
    "": lambda rows: rows,
    "reorder": lambda rows: rows[::-1],
    "dimensions": lambda rows: [(index, vector[:-1]) for index, vector in rows],
    "ragged": lambda rows: [(index, vector[: len(vector) - (index == 0)]) for index, vector in rows],
    "nan": _nan,
    "zeros": lambda rows: [(index, np.zeros_like(vector)) for index, vector in rows],
    "missing": lambda rows: rows[:-1],
    "double": lambda rows: [*rows, rows[0]],
    "beyond": lambda rows: [(index + 1, vector) for index, vector in rows],
}
