"""A text as it is read, its normal form, its id, and choices that depend on nothing but the text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

CONTROL = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\x{feff}\x{200b}\x{2060}]"
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'(\[]?[A-Z0-9])")
ABBREVIATIONS = ("e.g.", "i.e.", "etc.", "cf.", "vs.", "Dr.", "Mr.", "Mrs.", "St.", "No.", "Fig.", "al.")


@dataclass(frozen=True)
class RawText:
    """A text as a source gives it.

    Attributes:
        text: As read, not normalised.
        section: What part of the source: a package, a file, a subset. Also the label of the classification task.
        role: `document` or `query`.
        licence: SPDX expression or plain words.
        origin: Where exactly, for people.
        parent: The text that this one was taken from; both go to the same split.
    """

    text: str
    section: str
    role: str
    licence: str
    origin: str
    parent: str | None = None


@dataclass(frozen=True)
class Malformed:
    """What a source holds that is no text.

    Attributes:
        origin: Where, for people.
        why: What is wrong with it.
        excerpt: How it begins.
        whole_file: Whether the rest of the file went with it.
    """

    origin: str
    why: str
    excerpt: str = ""
    whole_file: bool = False


def normalise(texts: pl.Series) -> pl.Series:
    """Unicode NFC, no control or invisible characters, single blanks, at most one empty line in a row."""
    return (
        texts.str.replace_all(r"\r\n?", "\n")
        .str.normalize("NFC")
        .str.replace_all(CONTROL, "")
        .str.replace_all(r"[ \t\x{a0}]+", " ")
        .str.replace_all(r" ?\n ?", "\n")
        .str.replace_all(r"\n{3,}", "\n\n")
        .str.strip_chars(" \n")
    )


def text_id(text: str) -> str:
    """The id of a normalised text: the first 128 bits of its SHA-256, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def uniform(name: str, text_hash: str) -> float:
    """A number in [0, 1) that depends on the text and on what it is drawn for; stable as a corpus grows."""
    return int(hashlib.sha256(f"{name}:{text_hash}".encode()).hexdigest()[:13], 16) / 16**13


def uniforms(name: str, hashes: Iterable[str]) -> np.ndarray:
    """`[T]`: `uniform` of many texts."""
    prefix = f"{name}:"
    digests = b"".join(hashlib.sha256((prefix + each).encode()).digest()[:8] for each in hashes)
    return (np.frombuffer(digests, ">u8") >> 12) / 16**13


def splits_of(hashes: pl.Series, fractions: Mapping[str, float]) -> pl.Series:
    """`train`, or one of the held-out splits with the fraction it names, for each text."""
    names, ends = np.array([*fractions, "train"]), np.cumsum(list(fractions.values()))
    return pl.Series("split", names[np.searchsorted(ends, uniforms("split", hashes), side="right")], dtype=pl.String)


def first_sentence(text: str) -> tuple[str, str]:
    """The first sentence and the rest; the rest is empty when there is one sentence only.

    A sentence ends at `.`, `!` or `?` before a capital letter, or at an empty line; common abbreviations do not end it.
    """
    paragraph, _, following = text.partition("\n\n")
    for end, start in _sentence_ends(paragraph):
        return paragraph[:end], paragraph[start:] + ("\n\n" + following if following else "")
    return paragraph, following


def sentences(text: str) -> list[str]:
    """The sentences of a text, ended as in `first_sentence`."""
    found = []
    for paragraph in text.split("\n\n"):
        begin = 0
        for end, start in _sentence_ends(paragraph):
            found.append(paragraph[begin:end])
            begin = start
        found.append(paragraph[begin:])
    return [sentence for sentence in found if sentence.strip()]


def _sentence_ends(paragraph: str) -> Iterator[tuple[int, int]]:
    """Where a sentence ends, and where the next one starts."""
    for match in SENTENCE_END.finditer(paragraph):
        if not paragraph.endswith(ABBREVIATIONS, 0, match.start()):
            yield match.start(), match.end()
