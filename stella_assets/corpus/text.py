"""The normal form of a text, its id, and draws that depend on nothing but the text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl

CONTROL = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\x{feff}\x{200b}\x{2060}]"


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
    """A number in [0, 1) that depends on the text and the purpose `name` only, so it is stable as a corpus grows."""
    return int(hashlib.sha256(f"{name}:{text_hash}".encode()).hexdigest()[:13], 16) / 16**13


def uniforms(name: str, hashes: Iterable[str]) -> np.ndarray:
    """`[T]`: `uniform` of many texts."""
    prefix = f"{name}:"
    digests = b"".join(hashlib.sha256((prefix + each).encode()).digest()[:8] for each in hashes)
    return (np.frombuffer(digests, ">u8") >> 12) / 16**13


def splits_of(hashes: pl.Series, fractions: Mapping[str, float]) -> pl.Series:
    """The split of each text: one of the held-out splits, by its fraction, or `train`."""
    names, ends = np.array([*fractions, "train"]), np.cumsum(list(fractions.values()))
    return pl.Series("split", names[np.searchsorted(ends, uniforms("split", hashes), side="right")], dtype=pl.String)
