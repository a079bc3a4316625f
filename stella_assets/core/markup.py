"""Data on terminals and in Markdown: what comes from recipes, texts and files is shown as it is, and is not obeyed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any

# What a terminal obeys (C0 and C1, which begin escape sequences and links), what turns the direction of the text, what
# is invisible and looks like another text, and halves of surrogates, which cannot be encoded. Line feed and tab stay.
CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)
# Of inline markup: emphasis, code, links, pictures, strike-through, formulas, cells, and the escape itself. An
# underscore between letters is none, and names are full of them.
INLINE = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
# At the start of a line: headings, items of lists, and lines that make a heading of the one before.
BLOCK = re.compile(r"^[ \t]*(?:(#{1,6}|[-+]|\d+[.)])(?=\s|$)|([-=])(?=[-=\s]*$))", re.MULTILINE)


def visible(text: str) -> str:
    """Text that no terminal obeys: a control character is written as in Python, e.g. `\\x1b`."""
    return CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def markdown_text(value: Any) -> str:
    """A value as it is read, with nothing that Markdown or HTML would take for markup.

    Args:
        value: Data, of any length.
    """
    # Files in Markdown are read on terminals, too.
    plain = visible(str(value).replace("\r\n", "\n"))
    # Entities, as not every reader of Markdown knows `\\<`.
    text = INLINE.sub(r"\\\g<0>", escape(plain, quote=False))
    # Indented lines would be code.
    text = re.sub(r"(?<=\n)[ \t]+", "", text)
    return BLOCK.sub(lambda found: found.group().lstrip()[:-1] + "\\" + found.group()[-1], text)


def markdown_code(value: Any) -> str:
    """A value as inline code, whatever it holds."""
    text = visible(" ".join(str(value).splitlines()))
    # As many backticks as the value does not have in a row; spaces at both ends are not part of the code.
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    padded = f" {text} " if longest or text[:1] == " " == text[-1:] else text
    return f"{fence}{padded}{fence}"


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[Any]], *, figures: bool = True, markup: bool = False
) -> str:
    """A table in Markdown. What rows hold is data: a cell cannot end its column or its row, or add markup.

    Args:
        header: Names of the columns.
        rows: One value per column.
        figures: Whether all columns but the first hold figures, which are set to the right.
        markup: Whether cells are Markdown of our own, and no data.
    """
    # `---:` sets a column to the right in GitHub's Markdown.
    rules = ["---"] + ["---:" if figures else "---"] * (len(header) - 1)
    cells = [[_cell(value, markup) for value in row] for row in (header, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (cells[0], rules, *cells[1:]))


def _cell(value: Any, markup: bool) -> str:
    shown = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    line = " ".join(shown.splitlines())
    return line.replace("|", "\\|") if markup else markdown_text(line)
