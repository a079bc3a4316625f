"""Rules that divide a document into a query and what answers it."""

from __future__ import annotations

from typing import Literal

from stella_assets.corpus.sentences import first_sentence

RuleName = Literal["question", "first_line", "first_sentence"]


def divide(text: str, rule: RuleName) -> tuple[str, str] | None:
    """A query and the rest of a document, or None where the rule does not apply.

    Args:
        text: The document.
        rule: `question`: its first line or sentence, if that ends with a question mark; `first_line`: a title;
            `first_sentence`.

    Example:
        >>> divide("What is a lens? A piece of glass that bends light.", "question")
        ('What is a lens?', 'A piece of glass that bends light.')
    """
    line, _, rest = (part.strip() for part in text.strip().partition("\n"))
    if rule == "first_line":
        parts = line, rest
    else:
        parts = first_sentence(text.strip())
        if rule == "question" and not parts[0].endswith("?"):
            # A heading without a capital behind it, e.g. "what is a lens?" above a list.
            parts = (line, rest) if line.endswith("?") else ("", "")
    query, answer = (part.strip() for part in parts)
    return (query, answer) if query and answer else None
