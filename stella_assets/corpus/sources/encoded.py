"""Opening a file of text: unpacked, and in an encoding whose lines can be told apart before they are decoded."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stella_assets.corpus.sources.base import EXCERPT_CHARS, Malformed, excerpt

BUFFER = 2**20
# By content and not by name: archives are renamed, and browsers unpack `.gz` files without a word.
PACKED = {
    "gzip": (b"\x1f\x8b",),
    "zstd": (b"\x28\xb5\x2f\xfd",),
    "lz4": (b"\x04\x22\x4d\x18",),
    "xz": (b"\xfd7zXZ\x00",),
    # The second form is an archive of an empty file.
    "bz2": tuple(b"BZh%d" % level + block for level in range(1, 10) for block in (b"1AY&SY", b"\x17rE8P\x90")),
}
NAMES = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz", ".lz4": "lz4"}
NO_TEXT = {
    b"PK\x03\x04": "a ZIP archive or an Office document; unpack it, or save it as text",
    b"PAR1\x15": "a Parquet file",
    b"%PDF-": "a PDF",
    b"SQLite format 3\x00": "an SQLite database",
}
# UTF-32 first: its mark begins like that of UTF-16.
MARKS = {
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be",
}  # fmt: skip
LOOKED_AT = 4096
"""Bytes that an encoding without a mark is told by."""


@dataclass(frozen=True)
class Content:
    """The content of a file.

    Attributes:
        stream: Its bytes. A line ends with the byte 0x0a.
        encoding: Of the bytes.
        name: Of the encoding that the file has; the same, or the file was transcoded.
    """

    stream: io.BufferedReader
    encoding: str
    name: str

    def not_encoded(self, error: UnicodeDecodeError, origin: str) -> Malformed:
        """A unit of another encoding."""
        byte = error.object[error.start]
        place = f": byte {error.start} is 0x{byte:02x}" if self.encoding == self.name else ""
        return Malformed(origin, f"not {self.name}{place}", excerpt(error.object[: 2 * EXCERPT_CHARS]))


@contextmanager
def opened(path: Path, encoding: str) -> Iterator[Content]:
    """The content of a file, unpacked if it is packed with gzip, bzip2, xz, zstd or lz4.

    Args:
        path: The file.
        encoding: That its text has, unless a byte order mark says otherwise. UTF-16 without a mark is told by its zero
            bytes where UTF-8 is expected.

    Raises:
        ValueError: The file is of a format without plain text.
    """
    with ExitStack() as stack:
        with path.open("rb") as file:
            head = file.read(16)
        stream = io.BufferedReader(stack.enter_context(_unpacked(path, head)), BUFFER)
        head = stream.peek(LOOKED_AT)[:LOOKED_AT]
        if other := next((what for begin, what in NO_TEXT.items() if head.startswith(begin)), None):
            raise ValueError(other)
        mark = next((mark for mark in MARKS if head.startswith(mark)), b"")
        stream.read(len(mark))
        name = MARKS[mark] if mark else _encoding_of(head, codecs.lookup(encoding).name)
        # Lines of e.g. UTF-16 cannot be cut as bytes: 0x0a is half of other characters, too.
        if '{"\n'.encode(name) == b'{"\n':
            yield Content(stream, name, name)
        else:
            yield Content(io.BufferedReader(_Transcoded(stream, name), BUFFER), "utf-8", name)


def _unpacked(path: Path, head: bytes) -> Any:
    import pyarrow as pa

    packed = next((codec for codec, begins in PACKED.items() if head.startswith(begins)), None)
    # Archives may begin in other ways, or be damaged; a file that was unpacked and kept its name is text.
    if not packed and not _is_utf8(head):
        packed = NAMES.get(path.suffix.lower())
    if packed == "xz":
        import lzma

        return lzma.open(path)
    # pyarrow is quicker than Python's modules, and reads zstd, which Python 3.11 does not.
    return pa.input_stream(str(path), compression=packed)


def _encoding_of(head: bytes, expected: str) -> str:
    """The encoding of text that begins without a mark."""
    if expected not in ("utf-8", "utf-8-sig", "utf-16"):
        return {"utf-32": "utf-32-le"}.get(expected, expected)
    # ASCII characters, e.g. the line ends of any language, have one zero byte each, always on the same side.
    zeros = {"utf-16-be": head[::2].count(0), "utf-16-le": head[1::2].count(0)}
    name = max(zeros, key=lambda each: zeros[each])
    # Text in UTF-8 may have stray zero bytes; what is not UTF-8 may be e.g. Chinese, with few ASCII characters.
    share = 0.1 if _is_utf8(head) else 0.01
    if zeros[name] > max(1, 2 * min(zeros.values())) and zeros[name] >= share * len(head):
        return name
    return "utf-8" if expected.startswith("utf-8") else "utf-16-le"


def _is_utf8(head: bytes) -> bool:
    try:
        # Not final: the last character may be cut.
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


class _Transcoded(io.RawIOBase):
    """A stream in another encoding as UTF-8. What cannot be decoded becomes bytes that are not UTF-8 either."""

    def __init__(self, stream: io.BufferedReader, encoding: str) -> None:
        self._stream, self._decoder = stream, codecs.getincrementaldecoder(encoding)(_MARK_WRONG)
        self._pending = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._pending:
            block = self._stream.read(BUFFER // 4)
            self._pending = self._decoder.decode(block, not block).encode("utf-8", "surrogatepass")
            if not block:
                break
        size = min(len(buffer), len(self._pending))
        buffer[:size], self._pending = self._pending[:size], self._pending[size:]
        return size


def _mark_wrong(error: UnicodeError) -> tuple[str, int]:
    # Half a surrogate pair, which UTF-8 does not have: the line that it is in is found to be wrong when it is decoded.
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff", error.end


_MARK_WRONG = "stella.mark_wrong"
codecs.register_error(_MARK_WRONG, _mark_wrong)
