"""Files of vectors that were made elsewhere: raw, npy, Parquet, JSON Lines, and the output of OpenAI's batch API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stella_assets.corpus.read import CorpusTexts
from stella_assets.storage.errors import TransferError
from stella_assets.storage.polars import pl
from stella_assets.teachers.api.answers import read_numbers
from stella_assets.teachers.api.errors import AnswerError
from stella_assets.teachers.transfer import Memmap

NAMES = ("embedding", "vector", "vectors")
"""Of the column or key that holds the vectors, the first that there is."""
BATCH_ROWS = 4096


def open_vectors(
    vectors: Path,
    texts: Path | None,
    dim: int | None,
    dtype: Literal["float32", "float16"],
    corpus: Callable[[], CorpusTexts],
    scratch: Path,
) -> tuple[np.ndarray, list[str]]:
    """The vectors of a file, mapped and not read, and their texts.

    Args:
        vectors: `.npy`, `.parquet`, `.jsonl`, or a file without a header.
        texts: Of the rows: one per line, or JSON Lines with a key `text`; of a batch, its input file.
        dim: Dimensions; of a file without a header.
        dtype: Of a file without a header.
        corpus: The recipe's texts, for files that name texts by id.
        scratch: For a file of the vectors as they are mapped.

    Raises:
        TransferError: A file is missing, has another form, or names a text that nothing tells.
    """
    if not vectors.is_file():
        raise TransferError(f"{vectors}: no such file.")
    match vectors.suffix:
        case ".npy":
            return _read_npy(vectors, _required(texts, vectors))
        case ".parquet":
            rows = _parquet_rows(vectors)
        case ".jsonl":
            rows = _json_rows(vectors, texts)
        case _:
            if dim is None:
                raise TransferError(f"{vectors}: has no header that tells its dimensions. Give --dim.")
            return Memmap(vectors, _required(texts, vectors), dim, dtype).open()
    return _collect(vectors, rows, corpus, scratch / "vectors.f32")


def _required(texts: Path | None, vectors: Path) -> Path:
    if texts is None:
        raise TransferError(f"{vectors}: does not hold its texts. Give --texts.")
    return texts


def _read_npy(vectors: Path, texts: Path) -> tuple[np.ndarray, list[str]]:
    try:
        rows = np.load(vectors, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise TransferError(f"{vectors}: cannot be read as npy ({error}).") from None
    lines = list(Memmap(vectors, texts, 1, "float32").read_texts())
    if rows.ndim != 2 or rows.dtype.kind != "f" or len(rows) != len(lines):
        raise TransferError(
            f"{vectors}: {rows.dtype} of shape {rows.shape} are not the vectors of the {len(lines):,} lines of {texts}."
        )
    return rows, lines


Row = tuple[str | None, str | None, np.ndarray]
"""Id, text, vector; one of the first two is None."""


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise TransferError(f"{path}: cannot be read as Parquet ({error}).") from None
    names = file.schema_arrow.names
    vector = next((name for name in NAMES if name in names), None)
    key = next((name for name in ("text", "id") if name in names), None)
    if vector is None or key is None:
        raise TransferError(f"{path}: has the columns {', '.join(names)}; it needs `text` or `id`, and `embedding`.")
    for batch in file.iter_batches(BATCH_ROWS, columns=[key, vector]):
        for named, row in zip(batch.column(key).to_pylist(), batch.column(vector), strict=True):
            yield *_named(key, named), np.asarray(row.as_py(), dtype=np.float32)


def _json_rows(path: Path, texts: Path | None) -> Iterator[Row]:
    asked: dict[str, list[str]] | None = None
    for number, line in _lines(path):
        if "custom_id" in line:
            if asked is None:
                asked = _batch_input(texts, path)
            yield from _answered(path, number, line, asked)
            continue
        key = next((name for name in ("text", "id") if isinstance(line.get(name), str)), None)
        vector = next((line[name] for name in NAMES if name in line), None)
        if key is None or vector is None:
            raise TransferError(f"{path}: line {number} has no `text` or `id`, or no `embedding`.")
        yield *_named(key, line[key]), _numbers(vector, path, number)


def _answered(path: Path, number: int, line: dict[str, Any], asked: dict[str, list[str]]) -> Iterator[Row]:
    """The rows of one line of a batch's output; none of a request that failed."""
    response = line.get("response") or {}
    if line.get("error") or response.get("status_code") != 200:
        return
    sent = asked.get(line["custom_id"])
    if sent is None:
        raise TransferError(
            f"{path}: line {number}: --texts has no request {line['custom_id']!r}. Give the input file."
        )
    rows = response.get("body", {}).get("data", [])
    if sorted(row.get("index", -1) for row in rows) != list(range(len(sent))):
        raise TransferError(f"{path}: line {number} has {len(rows)} vectors for {len(sent)} texts.")
    for row in rows:
        yield None, sent[row["index"]], _numbers(row["embedding"], path, number)


def _batch_input(texts: Path | None, output: Path) -> dict[str, list[str]]:
    """Texts of each request of a batch, by its custom id."""
    asked: dict[str, list[str]] = {}
    for number, line in _lines(_required(texts, output)):
        given = line.get("body", {}).get("input") if isinstance(line.get("body"), dict) else None
        given = [given] if isinstance(given, str) else given
        if "custom_id" not in line or not isinstance(given, list) or not all(isinstance(each, str) for each in given):
            raise TransferError(f"{texts}: line {number} is not a request of a batch with texts. Give its input file.")
        asked[line["custom_id"]] = given
    return asked


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        raise TransferError(f"{path}: no such file.")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                content = json.loads(line)
            except ValueError:
                content = None
            if not isinstance(content, dict):
                raise TransferError(f"{path}: line {number} is not a JSON object.")
            yield number, content


def _named(key: str, value: str) -> tuple[str | None, str | None]:
    return (value, None) if key == "id" else (None, value)


def _numbers(vector: Any, path: Path, number: int) -> np.ndarray:
    try:
        found = read_numbers(vector)
    except AnswerError:
        found = np.empty(0, dtype=np.float32)
    if not found.size:
        raise TransferError(f"{path}: line {number}: its vector is not a list of numbers.")
    return found


def _collect(
    path: Path, rows: Iterator[Row], corpus: Callable[[], CorpusTexts], to: Path
) -> tuple[np.ndarray, list[str]]:
    """Write the vectors as they come, so that only texts are in memory; those of ids nobody knows are left out."""
    ids: list[str | None] = []
    texts: list[str | None] = []
    dim = None
    with to.open("wb") as file:
        for key, text, vector in rows:
            if dim not in (None, len(vector)):
                raise TransferError(f"{path}: row {len(ids) + 1} has {len(vector)} dimensions, the first {dim}.")
            dim = len(vector)
            ids.append(key)
            texts.append(text)
            file.write(vector.tobytes())
    if dim is None:
        raise TransferError(f"{path}: holds no vectors.")
    block: np.ndarray = np.memmap(to, dtype=np.float32, mode="r", shape=(len(ids), dim))
    if not any(ids):
        return block, [text or "" for text in texts]
    known = _texts_of([key for key in ids if key], corpus())
    found = [text if key is None else known.get(key) for key, text in zip(ids, texts, strict=True)]
    kept = [number for number, text in enumerate(found) if text is not None]
    if not kept:
        raise TransferError(f"{path}: names no text of the recipe's corpus by its id.")
    return block[kept] if len(kept) < len(found) else block, [text for text in found if text is not None]


def _texts_of(ids: Sequence[str], corpus: CorpusTexts) -> dict[str, str]:
    wanted = pl.Series(ids).unique()
    found: dict[str, str] = {}
    for batch in corpus.scan(["id", "text"]):
        rows = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch]))).filter(pl.col("id").is_in(wanted.implode()))
        found |= dict(rows.iter_rows())
    return found
