"""Source kind `text`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from stella_assets.corpus.sources.base import SOURCES, RawText, Rows
from stella_assets.corpus.sources.encoded import opened
from stella_assets.corpus.sources.files import EncodedFileSource
from stella_assets.corpus.sources.lines import lines_of, paragraphs_of, too_long, whole_of

UNITS = {"line": lines_of, "paragraph": paragraphs_of, "file": whole_of}


@SOURCES.register
class Text(EncodedFileSource):
    """Plain text files, also compressed. A text is a line, a paragraph or a whole file.

    Example:
        Of `corpus.sources` in a recipe::

            {name: manuals, kind: text, path: "manuals/**/*.md", unit: paragraph, licence: MIT}
    """

    suffixes: ClassVar[tuple[str, ...]] = (".txt", ".md", ".rst", ".text")

    kind: Literal["text"]
    unit: Literal["line", "paragraph", "file"] = Field(
        default="paragraph", description="what one text is: `line`, `paragraph` (blank lines separate them) or `file`"
    )

    def rows(self, path: Path, section: str) -> Rows:
        """The units of one file that are not blank."""
        with opened(path, self.encoding) as content:
            for number, unit in UNITS[self.unit](content.stream):
                origin = f"{path.name}:{number}"
                if unit is None:
                    yield too_long(origin)
                    continue
                try:
                    # Unit by unit: one wrong byte costs its own unit and not the rest of the file.
                    text = unit.decode(content.encoding)
                except UnicodeDecodeError as error:
                    yield content.not_encoded(error, origin)
                else:
                    if text.strip():
                        yield RawText(text.strip("\r\n"), section, self.role, self.licence, origin)
