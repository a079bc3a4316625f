"""Opening a file of text: unpacked, and in an encoding whose lines can be told apart before they are decoded."""

from __future__ import annotations

import codecs
import io
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stella_assets.corpus.sources.base import EXCERPT_CHARS, Malformed, excerpt

BUFFER = 2**20
PIECE = 8192
"""Bytes that are unpacked at a time. Where an archive breaks off, only the last piece is lost."""
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
    b"PK\x05\x06": "an empty ZIP archive",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Office document; save it as text",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it",
    b"Rar!\x1a\x07": "a RAR archive; unpack it",
    b"PAR1\x15": "a Parquet file",
    b"ARROW1\x00\x00": "an Arrow or Feather file; write it as Parquet",
    b"%PDF-": "a PDF",
    b"SQLite format 3\x00": "an SQLite database",
}
TAR = b"ustar"
"""Stands at byte 257 of an archive, which begins with the name of its first file."""
# UTF-32 first: its mark begins like that of UTF-16.
MARKS = {
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be",
}  # fmt: skip
UNICODE = ("utf-8", "utf-16", "utf-32")
UNMARKED = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
LOOKED_AT = 4096
"""Bytes that an encoding without a mark is told by."""
STRAY = 0.05
"""Share of strange characters above which bytes are hardly text in an encoding: UTF-8 may have stray zero bytes."""
STRANGE = frozenset(chr(byte << 8) for byte in range(0x20, 0x7F)) - {"\u3000", "\u4e00"} | {"\ufffd"}
"""Characters of a text that was decoded wrongly: an ASCII byte and a zero byte read as UTF-16, and U+FFFD."""
NO_CHARACTERS = ("Cc", "Cn", "Co", "Cs")
"""Control characters, unassigned and private ones, and halves of surrogate pairs."""


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
        encoding: That its text has, unless a byte order mark says otherwise. Which Unicode encoding a text without a
            mark has is told by its bytes.

    Raises:
        ValueError: The file is of a format without plain text.
    """
    with ExitStack() as stack:
        with path.open("rb") as file:
            head = file.read(16)
        packed = _packing(path, head)
        stream = io.BufferedReader(stack.enter_context(_unpacked(path, packed)), PIECE if packed else BUFFER)
        head = stream.peek(LOOKED_AT)[:LOOKED_AT]
        if other := next((what for begin, what in NO_TEXT.items() if head.startswith(begin)), None):
            raise ValueError(other)
        if head.startswith(TAR, 257):
            raise ValueError("a tar archive; unpack it")
        mark = next((mark for mark in MARKS if head.startswith(mark)), b"")
        stream.read(len(mark))
        name = MARKS[mark] if mark else _encoding_of(head, codecs.lookup(encoding).name)
        # Lines of e.g. UTF-16 cannot be cut as bytes: 0x0a is half of other characters, too.
        same = '{"\n'.encode(name) == b'{"\n'
        if not same:
            stream = io.BufferedReader(_Transcoded(stream, name), BUFFER)
        # An old Macintosh ends lines with a carriage return only; elsewhere it may be a part of a text.
        head = stream.peek(1)
        if b"\r" in head and b"\n" not in head:
            stream = io.BufferedReader(_Returns(stream), BUFFER)
        yield Content(stream, name if same else "utf-8", name)


def _packing(path: Path, head: bytes) -> str | None:
    packed = next((codec for codec, begins in PACKED.items() if head.startswith(begins)), None)
    # Archives may begin in other ways, or be damaged; a file that was unpacked and kept its name is text.
    return packed if packed or _is_utf8(head) else NAMES.get(path.suffix.lower())


def _unpacked(path: Path, packed: str | None) -> Any:
    if packed == "xz":
        import lzma

        return lzma.open(path)
    import pyarrow as pa

    # pyarrow is quicker than Python's modules, and reads zstd, which Python 3.11 does not.
    return pa.input_stream(str(path), compression=packed)


def _encoding_of(head: bytes, expected: str) -> str:
    """The encoding of text that begins without a mark: of UTF-8, UTF-16 and UTF-32 the one that gives text."""
    if not expected.startswith(UNICODE):
        return expected
    # ASCII characters, e.g. the line ends of any language, have zero bytes in UTF-16 and UTF-32.
    if head.count(0) > 1 and _strangeness(head, "utf-8") > STRAY:
        name = min(UNMARKED, key=lambda each: _strangeness(head, each))
        if _strangeness(head, name) < STRAY / 5:
            return name
    if expected.startswith("utf-8") or _is_utf8(head):
        return "utf-8"
    return expected if expected in UNMARKED else f"{expected}-le"


def _strangeness(head: bytes, encoding: str) -> float:
    """The share of characters that no text has many of: read in a wrong encoding, much of a text consists of them."""
    # Not final: the last character may be cut.
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head)
    return sum(map(_is_strange, text)) / max(len(text), 1)


def _is_strange(character: str) -> bool:
    return character in STRANGE or (unicodedata.category(character) in NO_CHARACTERS and character not in "\t\n\v\f\r")


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


class _Returns(io.RawIOBase):
    """A stream with line feeds in place of carriage returns."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._stream.read1(len(buffer)).replace(b"\r", b"\n")
        buffer[: len(block)] = block
        return len(block)


def _mark_wrong(error: UnicodeError) -> tuple[str, int]:
    # Half a surrogate pair, which UTF-8 does not have: the line that it is in is found to be wrong when it is decoded.
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff", error.end


_MARK_WRONG = "stella.mark_wrong"
codecs.register_error(_MARK_WRONG, _mark_wrong)
