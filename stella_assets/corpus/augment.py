"""Texts made of texts: documents cut into pieces, words shuffled (arXiv 2412.19048, section 4.1)."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from stella_assets.corpus.text import sentences, uniform
from stella_assets.recipe import Augment

CUT, SHUFFLED = "cut", "shuffled"


def augmented(text: str, key: str, role: str, settings: Augment) -> tuple[str, list[str]]:
    """What a text is replaced by: ("", [text]), its pieces, or itself with its words in another order.

    Whether and how depends on the text's id alone.
    """
    if role == "document" and uniform("cut", key) < settings.cut:
        pieces = list(_pieces(text, key, settings.max_sentences))
        if len(pieces) > 1:
            return CUT, pieces
    if uniform("shuffle", key) < settings.shuffle:
        words = re.findall(r"\S+", text)
        if len(words) > 1:
            random.Random(f"shuffle:{key}").shuffle(words)
            return SHUFFLED, [" ".join(words)]
    return "", [text]


def _pieces(text: str, key: str, longest: int) -> Iterator[str]:
    """Successive sentences, 1 to `longest` at a time."""
    draw, left = random.Random(f"cut:{key}"), sentences(text)
    while left:
        size = draw.randint(1, longest)
        yield " ".join(left[:size])
        left = left[size:]
