"""What the licences of teachers ask of a student, as far as their names tell. This is not legal advice."""

from __future__ import annotations

import re

OBLIGATIONS = (
    # Short abbreviations need word boundaries; `nc` and `sa` are parts of many words.
    (r"\bnc\b|non ?commercial", "no commercial use"),
    (r"\bby\b|apache|\bmit\b|\bbsd\b", "keep licence and attribution"),
    (r"\bsa\b|\b[al]?gpl|\bodbl\b", "share under the same terms"),
    (r"\bnd\b", "no derived works"),
    (
        r"proprietary|openai|cohere|voyage",
        "as agreed with the owner; providers of APIs restrict training",
    ),
    (r"\bgemma|\bllama|\bcommunity\b", "as the model's own terms of use say"),
)
"""Pattern in the lower-case name, in which everything but letters and digits is a space, and what it asks."""


def obligations(licence: str) -> str:
    """What a licence asks, in words; `unknown here` where its name does not tell.

    Args:
        licence: Its name, e.g. an SPDX identifier.

    Example:
        >>> obligations("CC-BY-NC-4.0")
        'no commercial use; keep licence and attribution'
    """
    # `CC-BY-NC-4.0` becomes `cc by nc 4 0`, so that word boundaries work.
    plain = re.sub(r"[^a-z0-9]+", " ", licence.lower())
    asked = [words for pattern, words in OBLIGATIONS if re.search(pattern, plain)]
    return "; ".join(asked) or "unknown here: read it"
