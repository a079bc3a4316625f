"""Texts made of other texts: documents cut into pieces, words shuffled (arXiv 2412.19048, section 3.2)."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from stella_assets.corpus.sentences import sentences
from stella_assets.corpus.settings import Augment
from stella_assets.corpus.text import uniform

CUT, SHUFFLED = "cut", "shuffled"


def augmented(text: str, key: str, role: str, settings: Augment) -> tuple[str, list[str]]:
    """What a text is replaced by. It depends on the text, its id, its role and the settings only.

    Args:
        text: The text.
        key: Its id, from which all draws are made.
        role: Only documents are cut.
        settings: How often texts are cut and shuffled.

    Returns:
        `cut` and the pieces, `shuffled` and the text with its words in another order, or "" and the text itself.

    References:
        Jasper and Stella, arXiv 2412.19048, section 3.2.

    Example:
        >>> augmented("One. Two.", "6dc8e2a4", "document", Augment())
        ('', ['One. Two.'])
    """
    if role == "document" and uniform("cut", key) < settings.cut:
        pieces = list(_pieces(text, key, settings.max_sentences))
        # A single piece would be the text itself under another label.
        if len(pieces) > 1:
            return CUT, pieces
    # Another name gives an independent draw: whether a text is cut does not decide whether it is shuffled.
    if uniform("shuffle", key) < settings.shuffle:
        words = re.findall(r"\S+", text)
        if len(words) > 1:
            # A string seed is hashed with SHA-512 by `random`, so the order does not depend on PYTHONHASHSEED.
            random.Random(f"shuffle:{key}").shuffle(words)
            return SHUFFLED, [" ".join(words)]
    return "", [text]


def _pieces(text: str, key: str, longest: int) -> Iterator[str]:
    """Successive sentences, joined 1 to `longest` at a time."""
    draw, left = random.Random(f"cut:{key}"), sentences(text)
    while left:
        size = draw.randint(1, longest)
        yield " ".join(left[:size])
        left = left[size:]
