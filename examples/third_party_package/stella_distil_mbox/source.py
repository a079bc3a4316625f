"""Source kind `mbox`: the plain text of mails."""

from __future__ import annotations

import mailbox
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from stella_assets.corpus.sources.base import SOURCES, Malformed, RawText, Rows
from stella_assets.corpus.sources.files import FileSource


@SOURCES.register
class Mbox(FileSource):
    """Mails of mbox files; a text is the plain text of one mail."""

    suffixes: ClassVar[tuple[str, ...]] = (".mbox",)

    kind: Literal["mbox"]
    subjects: bool = Field(default=True, description="whether the subject is the first line of the text")

    def rows(self, path: Path, section: str) -> Rows:
        """The mails of one file, in its order."""
        for number, mail in enumerate(mailbox.mbox(path, create=False), 1):
            origin = f"{path.name}:{number}"
            parts = [part for part in mail.walk() if part.get_content_type() == "text/plain"]
            if not parts:
                yield Malformed(origin, "has no plain text", str(mail["subject"]))
                continue
            payload = parts[0].get_payload(decode=True)
            assert isinstance(payload, bytes), "a part that is not multipart has bytes"
            body = payload.decode(parts[0].get_content_charset("utf-8"), errors="replace")
            text = f"{mail['subject']}\n{body}" if self.subjects and mail["subject"] else body
            yield RawText(text, section, self.role, self.licence, origin)
