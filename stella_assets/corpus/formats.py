"""Files of texts, read a row at a time: Parquet, JSON Lines, CSV, plain text, Lance; compressed ones too."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stella_assets.corpus.text import Malformed, RawText
from stella_assets.recipe import Columns, Csv, FileSource, HuggingFace, JsonLines, LanceTable, Parquet, Role, Text

MAX_BYTES = 32 * 2**20
"""A line, paragraph or file above this is no text but a mistake; it is never held in memory as a whole."""
EXCERPT = 120
SUFFIXES: dict[type[FileSource], tuple[str, ...]] = {
    Parquet: (".parquet",),
    JsonLines: (".jsonl", ".ndjson", ".json"),
    Csv: (".csv", ".tsv"),
    Text: (".txt", ".md", ".rst", ".text"),
}
COMPRESSED = ("", ".gz", ".zst")

Place = Callable[[object], str]
Rows = Iterator[RawText | Malformed]


def read_file(source: FileSource, path: Path) -> Rows:
    """The texts of a file, and what of it is malformed: rows by their place, or the rest of a file that breaks off."""

    def place(at: object) -> str:
        return f"{path.name}:{at}"

    section = path.name.removesuffix(".gz").removesuffix(".zst").rsplit(".", 1)[0]
    try:
        match source:
            case Parquet():
                yield from _parquet(source, path, section, place)
            case JsonLines():
                yield from _json_lines(source, path, section, place)
            case Csv():
                yield from _csv(source, path, section, place)
            case Text():
                yield from _text(source, path, section, place)
    except (OSError, ValueError, csv.Error) as error:
        yield Malformed(path.name, f"cannot be read: {' '.join(str(error).split())[:300]}", whole_file=True)


def read_lance(source: LanceTable) -> Rows:
    """The rows of a Lance table at the source's version."""
    import lance

    dataset = lance.dataset(str(source.resolve(source.path)), version=source.version)
    columns = [name for name in wanted_columns(source.columns) if name in dataset.schema.names]
    section = Path(source.path).name.removesuffix(".lance")
    number = 0
    for batch in dataset.to_batches(columns=columns):
        for row in batch.to_pylist():
            number += 1
            yield to_text(source, row, section, f"{section}:{number}")


def wanted_columns(columns: Columns) -> list[str]:
    """The top-level columns that a mapping names."""
    paths = [*columns.text, columns.section, columns.licence, columns.role]
    return list(dict.fromkeys(path.split(".")[0] for path in paths if path))


def to_text(
    source: Parquet | JsonLines | Csv | LanceTable | HuggingFace, row: Mapping[str, Any], section: str, origin: str
) -> RawText | Malformed:
    """A row as the source's columns say it."""
    columns = source.columns
    parts = []
    for path in columns.text:
        value = _at(row, path)
        if value is None:
            continue
        if not isinstance(value, str):
            return Malformed(origin, f"{path!r} is {type(value).__name__}, not text", excerpt(value))
        parts.append(value)
    if not parts and not any(path.split(".")[0] in row for path in columns.text):  # null is a text of no length
        keys = ", ".join(map(str, row))
        return Malformed(origin, f"no text under {' or '.join(map(repr, columns.text))}; the row has {keys}"[:300])
    role: Role = source.role
    if columns.role:
        said = _at(row, columns.role)
        if said not in ("document", "query"):
            why = f"{columns.role!r} is {said!r}, neither document nor query"
            return Malformed(origin, why, excerpt("\n".join(parts)))
        role = said
    named = [_at(row, path) if path else None for path in (columns.section, columns.licence)]
    return RawText("\n".join(parts), str(named[0] or section), role, str(named[1] or source.licence), origin)


def excerpt(value: object) -> str:
    """The beginning of something, on one line."""
    return " ".join(str(value)[: 2 * EXCERPT].split())[:EXCERPT]


def _at(row: Any, path: str) -> Any:
    """The value at a dotted path."""
    for name in path.split("."):
        row = row.get(name) if isinstance(row, Mapping) else None
    return row


def _parquet(source: Parquet, path: Path, section: str, place: Place) -> Rows:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        columns = [name for name in wanted_columns(source.columns) if name in file.schema_arrow.names]
        number = 0
        for batch in file.iter_batches(batch_size=8192, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield to_text(source, row, section, place(number))


def _json_lines(source: JsonLines, path: Path, section: str, place: Place) -> Rows:
    with _decompressed(path) as stream:
        for number, line in _lines(stream):
            if line is None:
                yield _too_long(place(number))
                continue
            try:
                content = line.decode(source.encoding)
                row = json.loads(content) if content.strip() else None
            except UnicodeDecodeError as error:
                yield _not_encoded(source.encoding, error, place(number))
            except (json.JSONDecodeError, RecursionError) as error:
                yield Malformed(
                    place(number), f"not JSON ({getattr(error, 'msg', 'nested too deeply')})", excerpt(content)
                )
            else:
                if isinstance(row, dict):
                    yield to_text(source, row, section, place(number))
                elif content.strip():
                    yield Malformed(place(number), f"{type(row).__name__}, not an object", excerpt(content))


def _csv(source: Csv, path: Path, section: str, place: Place) -> Rows:
    with _decompressed(path) as stream:
        lines = io.TextIOWrapper(stream, source.encoding, errors="surrogateescape", newline="")
        previous = csv.field_size_limit(MAX_BYTES)
        try:
            rows = csv.DictReader(lines, delimiter=source.delimiter, restkey="", strict=True)
            for row in rows:
                at = place(rows.line_num)
                if "" in row or None in row.values():
                    yield Malformed(at, f"not the {len(rows.fieldnames or ())} fields of the header", excerpt(row))
                elif any("\udc80" <= c <= "\udcff" for value in row.values() for c in value):
                    yield Malformed(at, f"not {source.encoding}", excerpt(ascii(row)))
                else:
                    yield to_text(source, row, section, at)
        finally:
            csv.field_size_limit(previous)


def _text(source: Text, path: Path, section: str, place: Place) -> Rows:
    with _decompressed(path) as stream:
        for number, unit in _units(stream, source.unit):
            if unit is None:
                yield _too_long(place(number))
                continue
            try:
                text = unit.decode(source.encoding)
            except UnicodeDecodeError as error:
                yield _not_encoded(source.encoding, error, place(number))
            else:
                if text.strip():
                    yield RawText(text.strip("\r\n"), section, source.role, source.licence, place(number))


def _units(stream: io.BufferedReader, unit: str) -> Iterator[tuple[int, bytes | None]]:
    """Lines, paragraphs or the whole, by number from 1; None for one that is too long."""
    if unit == "line":
        yield from _lines(stream)
        return
    if unit == "file":
        content = stream.read(MAX_BYTES + 1)
        yield 1, content if len(content) <= MAX_BYTES else None
        return
    number, size = 1, 0
    lines: list[bytes] = []
    for _, line in _lines(stream):
        size += MAX_BYTES + 1 if line is None else len(line)
        if line is not None and not line.strip():
            yield number, b"".join(lines) if size <= MAX_BYTES else None
            number, size, lines = number + 1, 0, []
        elif size <= MAX_BYTES:
            lines.append(line or b"")
    yield number, b"".join(lines) if size <= MAX_BYTES else None


def _lines(stream: io.BufferedReader) -> Iterator[tuple[int, bytes | None]]:
    """Lines by number from 1, None for one that is too long."""
    number = 0
    while line := stream.readline(MAX_BYTES + 1):
        number += 1
        if len(line) > MAX_BYTES and not line.endswith(b"\n"):
            while (rest := stream.readline(MAX_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, None
        else:
            yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def _too_long(origin: str) -> Malformed:
    return Malformed(origin, f"longer than {MAX_BYTES // 2**20} MiB")


def _not_encoded(encoding: str, error: UnicodeDecodeError, origin: str) -> Malformed:
    byte = error.object[error.start]
    return Malformed(
        origin, f"not {encoding}: byte {error.start} is 0x{byte:02x}", excerpt(error.object[: 2 * EXCERPT])
    )


@contextmanager
def _decompressed(path: Path) -> Iterator[io.BufferedReader]:
    import pyarrow as pa

    with pa.input_stream(str(path), compression="detect") as stream:
        yield io.BufferedReader(stream, 2**20)
