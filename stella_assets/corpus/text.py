"""The normal form of a text, its id, and draws that depend on nothing but the text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from stella_assets.storage.polars import pl

# Tabs and line feeds stay. So do the zero-width joiner and non-joiner, which Persian, Indic scripts and emoji use.
CONTROL = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\x{feff}\x{200b}\x{2060}]"


def normalise(texts: pl.Series) -> pl.Series:
    """Unicode NFC, no control or invisible characters, single blanks, at most one empty line in a row.

    Example:
        >>> normalise(pl.Series(["One\\tline.\\r\\n\\r\\n\\r\\nNext "])).to_list()
        ['One line.\\n\\nNext']
    """
    # Line ends come first, since the carriage return is among the control characters.
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
    """The id of a normalised text: the first 128 bits of its SHA-256, in hexadecimal.

    Example:
        >>> text_id("Hello.")
        '2d8bd7d9bb5f85ba643f0110d50cb506'
    """
    # 128 bits: among 10^12 texts two have one id with a probability below 10^-14.
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def uniform(name: str, text_hash: str) -> float:
    """A number in [0, 1) that depends on the text and the purpose `name` only, so it is stable as a corpus grows.

    Args:
        name: Draws under different names are independent.
        text_hash: The text's id, or the hash of its group.
    """
    # 13 hexadecimal digits are 52 bits, which a float64 holds exactly.
    return int(hashlib.sha256(f"{name}:{text_hash}".encode()).hexdigest()[:13], 16) / 16**13


def uniforms(name: str, hashes: Iterable[str]) -> np.ndarray:
    """`[T]`: `uniform` of many texts."""
    prefix = f"{name}:"
    digests = b"".join(hashlib.sha256((prefix + each).encode()).digest()[:8] for each in hashes)
    # The first 52 of 64 bits, in the byte order of the hexadecimal form: equal to `uniform` bit for bit.
    return (np.frombuffer(digests, ">u8") >> 12) / 16**13


def splits_of(hashes: pl.Series, fractions: Mapping[str, float]) -> pl.Series:
    """The split of each text: one of the held-out splits, by its fraction, or `train`.

    Args:
        hashes: Texts with equal hashes are in one split.
        fractions: By held-out split. A changed fraction moves texts at the borders of the intervals only.
    """
    # Intervals are half-open: a draw that equals an end belongs to the next split.
    names, ends = np.array([*fractions, "train"]), np.cumsum(list(fractions.values()))
    return pl.Series("split", names[np.searchsorted(ends, uniforms("split", hashes), side="right")], dtype=pl.String)
