"""Reading texts from files and data sets."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterator
from pathlib import Path

from stella_assets.corpus.python_docs import docstring_texts, package_versions
from stella_assets.corpus.text import RawText
from stella_assets.manifest import digest, file_digest
from stella_assets.recipe import Corpus, FileSource, HuggingFace, JsonLines, Parquet, PythonDocs, Source, Text


class SourceError(ValueError):
    """A source that cannot be read, with the file, the place and the remedy."""


def matching_files(source: FileSource) -> list[Path]:
    """The files of a source, in the order of their names.

    Raises:
        SourceError: No file matches.
    """
    pattern = str(source.resolve(source.path))
    found = glob.glob(pattern, recursive=True)  # noqa: PTH207 (a pattern may be absolute)
    paths = sorted(Path(name) for name in found if Path(name).is_file())
    if not paths:
        raise SourceError(
            f"{pattern}: source {source.name!r} matches no file. Correct `path`; it counts from the recipe."
        )
    return paths


def source_digests(corpus: Corpus) -> dict[str, str]:
    """What every source holds now: digests of files, versions of packages, revisions of data sets."""
    found = {}
    for source in corpus.sources:
        match source:
            case PythonDocs():
                found[source.name] = digest(package_versions(source.packages))
            case HuggingFace():
                found[source.name] = digest([source.dataset, hub_commit(source.dataset, source.revision)])
            case _:
                found[source.name] = digest([[path.name, file_digest(path)] for path in matching_files(source)])
    return found


def hub_commit(dataset: str, revision: str) -> str:
    """The commit that a revision of a data set names now; a full commit hash names itself.

    Raises:
        SourceError: The hub cannot be asked.
    """
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        return str(HfApi().dataset_info(dataset, revision=revision).sha)
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx2.HTTPError, OSError) as error:
        raise SourceError(
            f"{dataset}: the hub did not say which commit revision {revision!r} is ({type(error).__name__}). "
            "Connect to the hub, or give the commit's 40 hexadecimal digits as `revision`."
        ) from None


def check_source(source: Source) -> None:
    """Find out cheaply whether a source can be read: files exist, the column is there, the bytes are UTF-8.

    Raises:
        SourceError: It cannot.
    """
    match source:
        case PythonDocs():
            package_versions(source.packages)
        case HuggingFace():
            return
        case FileSource():
            for path in matching_files(source):
                _check_file(source, path)


def _check_file(source: FileSource, path: Path) -> None:
    match source:
        case Parquet():
            import pyarrow as pa
            import pyarrow.parquet as pq

            try:
                columns = pq.read_schema(path).names
            except pa.ArrowInvalid as error:
                raise SourceError(f"{path}: not a Parquet file ({error}). Correct `path` of {source.name!r}.") from None
            if source.text_column not in columns:
                raise SourceError(
                    f"{path}: no column {source.text_column!r}; it has {', '.join(columns)}. "
                    f"Set `text_column` of source {source.name!r}."
                )
        case JsonLines():
            next(_read_json_lines(source, path), None)
        case Text():
            _read_utf8(path)


def read_source(source: Source) -> Iterator[RawText]:
    """The texts of a source, in an order that does not depend on the machine.

    Raises:
        SourceError: A file cannot be read.
    """
    match source:
        case PythonDocs():
            yield from docstring_texts(source.packages, queries=source.first_sentence_queries)
        case HuggingFace():
            yield from _read_hub(source)
        case FileSource():
            for path in matching_files(source):
                for place, text in _read_file(source, path):
                    yield RawText(text, path.stem, source.role, source.licence, f"{path.name}:{place}")


def _read_file(source: FileSource, path: Path) -> Iterator[tuple[int, str]]:
    match source:
        case Parquet():
            return _read_parquet(source, path)
        case JsonLines():
            return _read_json_lines(source, path)
        case Text():
            return _read_text(source, path)
    raise AssertionError(source)


def _read_parquet(source: Parquet, path: Path) -> Iterator[tuple[int, str]]:
    import pyarrow.parquet as pq

    row = 0
    for batch in pq.ParquetFile(path).iter_batches(columns=[source.text_column]):
        for text in batch.column(0).to_pylist():
            row += 1
            if text is not None:
                yield row, str(text)


def _read_json_lines(source: JsonLines, path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except UnicodeDecodeError as error:
                raise SourceError(
                    f"{path}:{number}: not UTF-8 at byte {error.start}. Convert the file to UTF-8."
                ) from None
            except json.JSONDecodeError as error:
                raise SourceError(f"{path}:{number}: not JSON ({error.msg}). Correct or remove the line.") from None
            if not isinstance(row, dict) or not isinstance(row.get(source.text_column), str):
                keys = ", ".join(row) if isinstance(row, dict) else type(row).__name__
                raise SourceError(
                    f"{path}:{number}: no text under {source.text_column!r}; the line has {keys}. "
                    f"Set `text_column` of source {source.name!r}."
                )
            yield number, row[source.text_column]


def _read_text(source: Text, path: Path) -> Iterator[tuple[int, str]]:
    content = _read_utf8(path).replace("\r\n", "\n")
    parts = {"line": content.splitlines(), "paragraph": content.split("\n\n"), "file": [content]}[source.unit]
    yield from enumerate(parts, 1)


def _read_utf8(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path}: not UTF-8, byte {error.start} is 0x{error.object[error.start]:02x}. "
            f"Convert it, for example: iconv -f latin1 -t utf-8 {path.name}"
        ) from None


def _read_hub(source: HuggingFace) -> Iterator[RawText]:
    from datasets import load_dataset

    commit = hub_commit(source.dataset, source.revision)  # the very one that the corpus' identity names
    rows = load_dataset(source.dataset, source.config, split=source.dataset_split, revision=commit, streaming=True)
    for number, row in enumerate(rows.take(source.limit), 1):
        if source.text_column not in row:
            raise SourceError(
                f"{source.dataset}: no column {source.text_column!r}; it has {', '.join(row)}. "
                f"Set `text_column` of source {source.name!r}."
            )
        section = source.config or source.dataset
        yield RawText(str(row[source.text_column]), section, source.role, source.licence, f"{source.dataset}:{number}")
