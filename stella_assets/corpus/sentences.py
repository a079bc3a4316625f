"""Where sentences end."""

from __future__ import annotations

import re
from collections.abc import Iterator

# A capital or a digit must follow: most dots inside names, versions and abbreviations then end nothing.
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'(\[]?[A-Z0-9])")
# Those that names and numbers often follow, which look like the beginning of a sentence.
ABBREVIATIONS = ("e.g.", "i.e.", "etc.", "cf.", "vs.", "Dr.", "Mr.", "Mrs.", "St.", "No.", "Fig.", "al.")


def first_sentence(text: str) -> tuple[str, str]:
    """The first sentence and the rest; the rest is empty when there is one sentence only.

    A sentence ends at `.`, `!` or `?` before a capital letter or a digit, or at an empty line; common abbreviations do
    not end it.

    Example:
        >>> first_sentence("It works, e.g. here. Then it stops. Really.")
        ('It works, e.g. here.', 'Then it stops. Really.')
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
