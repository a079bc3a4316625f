"""The sources of a recipe: what they hold now, whether they can be read, and their texts."""

from __future__ import annotations

import codecs
import glob
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

from stella_assets.core.manifest import digest, file_digest
from stella_assets.corpus.formats import COMPRESSED, SUFFIXES, Rows, read_file, read_lance, to_text, wanted_columns
from stella_assets.corpus.python_docs import docstring_texts, package_versions
from stella_assets.corpus.text import Malformed
from stella_assets.recipe import Columns, Corpus, FileSource, HuggingFace, LanceTable, Parquet, PythonDocs, Source

FIRST_ROWS = 100
OWN_PART_BYTES = 8 * 2**20


class SourceError(ValueError):
    """A source that cannot be read, with the file, the place and the remedy."""


def matching_files(source: FileSource) -> list[Path]:
    """The files of a source, in the order of their names.

    Raises:
        SourceError: No file matches.
    """
    place = source.resolve(source.path)
    if place.is_dir():
        suffixes = tuple(suffix + packed for suffix in SUFFIXES[type(source)] for packed in COMPRESSED)
        paths = sorted(path for path in place.rglob("*") if path.is_file() and path.name.endswith(suffixes))
        if not paths:
            raise SourceError(
                f"{place}: source {source.name!r}: the folder has no file that ends in {', '.join(suffixes)}. "
                "Correct `path` or `kind`, or name other files with a glob."
            )
        return paths
    found = glob.glob(str(place), recursive=True)  # noqa: PTH207 (a pattern may be absolute)
    paths = sorted(Path(name) for name in found if Path(name).is_file())
    if not paths:
        raise SourceError(
            f"{place}: source {source.name!r} matches no file. Correct `path`; it counts from the recipe."
        )
    return paths


@dataclass(frozen=True)
class SourcePart:
    """Some of a source, read together, and again only when it has changed.

    Attributes:
        digest: Of what it holds now: bytes of files, versions of packages and tables, revisions of data sets.
        paths: Its files; none where a source is no files.
    """

    digest: str
    paths: tuple[Path, ...] = ()


def source_parts(source: Source) -> list[SourcePart]:
    """The parts of a source: a large file each, small ones in groups that adding a file changes one of."""
    match source:
        case PythonDocs():
            return [SourcePart(digest(package_versions(source.packages)))]
        case HuggingFace():
            return [SourcePart(digest([source.dataset, hub_commit(source.dataset, source.revision)]))]
        case LanceTable():
            return [SourcePart(digest(_lance_identity(source)))]
        case FileSource():
            groups: dict[str, list[Path]] = {}
            for path in matching_files(source):
                alone = path.stat().st_size >= OWN_PART_BYTES
                groups.setdefault(str(path) if alone else digest(path.name)[:2], []).append(path)
            return [_part_of_files(paths) for _, paths in sorted(groups.items())]
    raise AssertionError(source)


def _part_of_files(paths: list[Path]) -> SourcePart:
    def of(path: Path) -> list[str]:
        about = path.stat()
        return [path.name, _digest_as_it_was(path, about.st_size, about.st_mtime_ns)]

    return SourcePart(digest(sorted(map(of, paths))), tuple(paths))


@lru_cache(maxsize=2**16)
def _digest_as_it_was(path: Path, _size: int, _changed: int) -> str:
    """Digest of a file, worked out anew when its size or its time of change is another."""
    return file_digest(path)


def source_digests(corpus: Corpus) -> dict[str, str]:
    """What every source holds now."""
    return {source.name: digest(sorted(part.digest for part in source_parts(source))) for source in corpus.sources}


def pinned(source: Source) -> Source:
    """The source at the very revision or version that its digest names now."""
    match source:
        case HuggingFace():
            return _with(source, revision=hub_commit(source.dataset, source.revision))
        case LanceTable():
            return _with(source, version=_lance_identity(source)[1])
    return source


def _with(source: Source, **values: object) -> Source:
    pinned = source.model_copy(update=values)
    pinned._folder = source._folder
    return pinned


def _lance_identity(source: LanceTable) -> tuple[str, int]:
    import lance

    place = source.resolve(source.path)
    try:
        dataset = lance.dataset(str(place), version=source.version)
    except (ValueError, OSError) as error:
        raise SourceError(
            f"{place}: source {source.name!r}: no Lance table, or not at version {source.version or 'newest'} "
            f"({' '.join(str(error).split())[:200]}). Correct `path` or `version`."
        ) from None
    _require_columns(source.columns, dataset.schema.names, place, source.name)
    fragments = [file.path for fragment in dataset.get_fragments() for file in fragment.data_files()]
    return digest(fragments), int(dataset.version)


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
    """Find out cheaply whether a source can be read: files exist, columns are there, the first rows hold texts.

    Raises:
        SourceError: It cannot.
    """
    match source:
        case PythonDocs():
            package_versions(source.packages)
        case LanceTable():
            _lance_identity(source)
        case FileSource():
            _check_encoding(source)
            paths = matching_files(source)
            refused = [why for path in paths if (why := _refusal(source, path))]
            if len(refused) > source.max_malformed * len(paths):
                raise SourceError(refused[0])


def _check_encoding(source: FileSource) -> None:
    encoding = getattr(source, "encoding", "utf-8")
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise SourceError(
            f"source {source.name!r}: there is no encoding {encoding!r}. Set `encoding`, as to utf-8 or cp1252."
        ) from None


def _refusal(source: FileSource, path: Path) -> str | None:
    """What is wrong with a file whose first rows hold no text at all."""
    if isinstance(source, Parquet):
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            names = pq.read_schema(path).names
        except (pa.ArrowInvalid, OSError) as error:
            return f"{path}: not a Parquet file ({error}). Correct `path` of source {source.name!r}."
        _require_columns(source.columns, names, path, source.name)
        return None
    first = list(islice(read_file(source, path), FIRST_ROWS))
    if not first or not all(isinstance(row, Malformed) for row in first):
        return None
    row = first[0]
    assert isinstance(row, Malformed)
    return (
        f"{path.parent / row.origin}: {row.why}. Correct the file, or `columns`, `encoding`, `kind` or `path` of "
        f"source {source.name!r}."
    )


def _require_columns(columns: Columns, names: list[str], place: Path, source: str) -> None:
    missing = [name for name in wanted_columns(columns) if name not in names]
    if missing:
        raise SourceError(
            f"{place}: no column {missing[0]!r}; it has {', '.join(names)}. Set `columns` of source {source!r}."
        )


def read_source(source: Source, part: SourcePart) -> Rows:
    """The texts of a part, and what of it is malformed, in an order that does not depend on the machine."""
    match source:
        case PythonDocs():
            yield from docstring_texts(source.packages, queries=source.first_sentence_queries)
        case HuggingFace():
            yield from _read_hub(source)
        case LanceTable():
            yield from read_lance(source)
        case FileSource():
            for path in part.paths:
                yield from read_file(source, path)


def _read_hub(source: HuggingFace) -> Rows:
    from datasets import load_dataset

    rows = load_dataset(
        source.dataset, source.config, split=source.dataset_split, revision=source.revision, streaming=True
    )
    section = source.config or source.dataset
    for number, row in enumerate(rows.take(source.limit), 1):
        if number == 1:
            _require_columns(source.columns, list(row), Path(source.dataset), source.name)
        yield to_text(source, row, section, f"{source.dataset}:{number}")
