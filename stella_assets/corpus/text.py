"""A text as it is read, its normal form, its id, and choices that depend on nothing but the text."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff]")
BLANKS = re.compile(r"[ \t\u00a0]+")
BLANK_LINES = re.compile(r" ?\n(?: ?\n)+ ?")
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


def normalise(text: str) -> str:
    """Unicode NFC, no control characters, single blanks, at most one empty line in a row."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = BLANKS.sub(" ", CONTROL.sub("", text))
    text = BLANK_LINES.sub("\n\n", text)
    return "\n".join(line.strip(" ") for line in text.split("\n")).strip()


def text_id(text: str) -> str:
    """The id of a normalised text: the first 128 bits of its SHA-256, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def uniform(name: str, text_hash: str) -> float:
    """A number in [0, 1) that depends on the text and on what it is drawn for; stable as a corpus grows."""
    return int(hashlib.sha256(f"{name}:{text_hash}".encode()).hexdigest()[:13], 16) / 16**13


def split_of(text_hash: str, fractions: Mapping[str, float]) -> str:
    """`train`, or one of the held-out splits with the fraction it names."""
    draw = uniform("split", text_hash)
    for split, fraction in fractions.items():
        if draw < fraction:
            return split
        draw -= fraction
    return "train"


def first_sentence(text: str) -> tuple[str, str]:
    """The first sentence and the rest; the rest is empty when there is one sentence only.

    A sentence ends at `.`, `!` or `?` before a capital letter, or at an empty line; common abbreviations do not end it.
    """
    paragraph, _, following = text.partition("\n\n")
    for match in SENTENCE_END.finditer(paragraph):
        if not paragraph[: match.start()].endswith(ABBREVIATIONS):
            rest = paragraph[match.end() :] + ("\n\n" + following if following else "")
            return paragraph[: match.start()], rest
    return paragraph, following
