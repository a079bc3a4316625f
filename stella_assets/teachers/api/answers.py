"""What comes back from a service: vectors of texts, or the reason why there is none."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stella_assets.teachers.api.errors import AnswerError


@dataclass(frozen=True)
class Answer:
    """One answered request.

    Attributes:
        positions: `[n]` int64, into the texts that were given.
        vectors: `[n, dim]` float32, finite, of unit norm.
        tokens: As billed; an upper bound where the answer does not say.
        request_id: The service's name of the request; empty where it has none.
    """

    positions: np.ndarray
    vectors: np.ndarray
    tokens: int
    request_id: str


@dataclass(frozen=True)
class Refusal:
    """A text that the service does not take.

    Attributes:
        position: Into the texts that were given.
        reason: The service's words, cut, without keys.
    """

    position: int
    reason: str


@dataclass(frozen=True)
class Parsed:
    """What a dialect reads in an answer.

    Attributes:
        vectors: `[n, dim]` float32 in the order of the request, as the service gave them.
        tokens: As billed; None where the answer does not say.
        request_id: Where the body has one.
        unread: Why nothing could be read of a text's answer, by its index in the request; its vector means nothing.
    """

    vectors: np.ndarray
    tokens: int | None
    request_id: str = ""
    unread: Mapping[int, str] = field(default_factory=dict)


def place(rows: Iterable[tuple[int, Any]], count: int, gives: str = "vectors") -> np.ndarray:
    """The vectors of an answer in the order of its request.

    Args:
        rows: Index and vector of each row, in any order: numbers, or base64 of little-endian float32.
        count: Texts of the request.
        gives: What the rows are, for messages.

    Returns:
        `[count, dim]` float32.

    Raises:
        AnswerError: A row is missing, double or too many, or rows have different lengths.
    """
    found: list[np.ndarray | None] = [None] * count
    for index, vector in rows:
        if not isinstance(index, int) or not 0 <= index < count:
            raise AnswerError(f"a row has the index {index!r}, and {count} texts were sent")
        if found[index] is not None:
            raise AnswerError(f"two rows have the index {index}")
        found[index] = read_numbers(vector)
    whole = [vector for vector in found if vector is not None]
    if len(whole) < count:
        raise AnswerError(f"{count} texts were sent, and {len(whole)} {gives} came back")
    if len({vector.size for vector in whole}) != 1:
        raise AnswerError("its vectors have different lengths")
    return np.stack(whole)


def rows_by_index(answer: Any, count: int) -> Parsed:
    """What an answer has in the form of OpenAI, which other providers took over."""
    vectors = place(((row["index"], row["embedding"]) for row in answer["data"]), count)
    # Some compatible servers leave the usage out, or fill it with zeros.
    usage = answer.get("usage") or {}
    return Parsed(vectors, billed(usage.get("prompt_tokens")) or billed(usage.get("total_tokens")))


def billed(count: Any) -> int | None:
    """Tokens as an answer gives them; None for what cannot be a count of them."""
    return count if isinstance(count, int) and count > 0 else None


def read_numbers(vector: Any) -> np.ndarray:
    """A vector as services write it, `[dim]` float32: numbers, or base64 of little-endian float32.

    Raises:
        AnswerError: It is neither.
    """
    try:
        if isinstance(vector, str):
            return np.frombuffer(base64.b64decode(vector, validate=True), dtype="<f4").astype(np.float32)
        numbers = np.asarray(vector, dtype=np.float32)
    except (binascii.Error, TypeError, ValueError, OverflowError):
        raise AnswerError("a vector is not a list of numbers") from None
    if numbers.ndim != 1:
        raise AnswerError("a vector is not a list of numbers")
    return numbers


def unit_vectors(vectors: np.ndarray, dim: int | None) -> np.ndarray:
    """The vectors scaled to norm 1.

    Args:
        vectors: `[n, dim]`.
        dim: What they must have; None where nobody knows yet.

    Raises:
        AnswerError: They have another dimension, a number that is not finite, or no direction.
    """
    if dim is not None and vectors.shape[1] != dim:
        raise AnswerError(f"its vectors have {vectors.shape[1]} dimensions, not {dim}", passing=False)
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    for wrong, what in ((~np.isfinite(norms), "numbers that are not finite"), (norms == 0, "a vector of zeros")):
        if wrong.any():
            raise AnswerError(f"it has {what}, first at index {int(np.argmax(wrong))}")
    units: np.ndarray = (vectors / norms).astype(np.float32)
    return units
