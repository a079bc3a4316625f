"""The data of tasks from Parquet files, in the shape that mteb's task classes expect after loading.

One layout serves tasks of one's own and official ones: a file `<task>.parquet`, or a folder `<task>/` with `corpus`,
`queries` and `qrels`. A column `split` says which rows are for which split; without it all rows are the test's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stella_assets.core.manifest import digest, file_digest

Splits = Mapping[str, Sequence[str]]

COLUMNS = {
    "sts": ("sentence1", "sentence2", "score"),
    "classification": ("text", "label"),
    "clustering": ("text", "label"),
    "pair_classification": ("sentence1", "sentence2", "label"),
    "reranking": ("query", "positive", "negative"),
}
"""What a file of each kind holds, beside `split`."""
RETRIEVAL_COLUMNS = {
    "corpus": ("id", "text"),
    "queries": ("id", "text"),
    "qrels": ("query_id", "doc_id", "score"),
}
OTHER_NAMES = {"_id": "id", "query-id": "query_id", "corpus-id": "doc_id", "labels": "label", "sentences": "text"}
"""Names that mteb's own data sets have for the same columns."""


class TaskDataError(ValueError):
    """The data of a task cannot be used, with the file and the remedy."""


def locate(folder: Path, task: str) -> Path | None:
    """Where a folder of tasks holds a task, in this layout, if it does."""
    for place in (folder / f"{task}.parquet", folder / task):
        if place.is_file() or (place / "corpus.parquet").is_file():
            return place
    return None


def content_digest(place: Path) -> str:
    """What a file, or every file of a folder, holds."""
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    stats = [(path, path.stat()) for path in files if not path.name.startswith(".")]
    if not stats:
        raise TaskDataError(f"{place}: there is no such file, or nothing in the folder. Correct the path.")
    return _files_digest(place, tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats))


@lru_cache(maxsize=1024)
def _files_digest(place: Path, stats: tuple[tuple[Path, int, int], ...]) -> str:
    """Hashed once a process for files that have not changed since."""
    return digest([[path.relative_to(place).as_posix(), file_digest(path)] for path, _, _ in stats])


def check_columns(place: Path, kind: str) -> None:
    """Make sure that the files of a task are there and have the columns of its kind, without reading their rows.

    Raises:
        TaskDataError: A file is missing, is no Parquet, or lacks a column.
    """
    for path, wanted in _files(place, kind).items():
        _require(path, pl.read_parquet_schema(path) if _is_parquet(path) else {}, wanted)


def fill(task: Any, place: Path, kind: str, splits: Splits) -> None:
    """Give an mteb task its data from local files.

    Args:
        task: An instance of one of mteb's task classes.
        place: A file, or a folder for retrieval.
        kind: What the data is for: a key of `COLUMNS`, or `retrieval`.
        splits: For a split of mteb's, the splits of the file that are read as it; itself when not named.

    Raises:
        TaskDataError: A column is missing, a split is empty, has no labels or too few, or a text is missing.
    """
    names = list(task.eval_splits)
    if kind == "classification" and task.train_split not in names:
        names.insert(0, task.train_split)
    if place.is_dir():
        task.dataset = {"default": {name: _retrieval(place, name, splits) for name in task.eval_splits}}
    else:
        frame = _read(place, COLUMNS[kind])
        parts = {name: _part(place, frame, name, splits) for name in names}
        task.dataset = FILLERS[kind](task, place, parts)
    task.data_loaded = True


def _files(place: Path, kind: str) -> dict[Path, tuple[str, ...]]:
    if kind == "retrieval" or place.is_dir():
        return {place / f"{name}.parquet": columns for name, columns in RETRIEVAL_COLUMNS.items()}
    return {place: COLUMNS[kind]}


def _is_parquet(path: Path) -> bool:
    try:
        pl.read_parquet_schema(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = "there is no such file" if not path.exists() else f"not a Parquet file ({error})"
        raise TaskDataError(f"{path}: {reason}. Correct the path, or replace the file.") from None
    return True


def _require(path: Path, columns: Mapping[str, Any], wanted: Sequence[str]) -> None:
    have = {OTHER_NAMES.get(name, name) for name in columns}
    if missing := [name for name in wanted if name not in have]:
        raise TaskDataError(
            f"{path}: has no column `{missing[0]}`; it has {', '.join(columns)}. Rename or add it: this kind of task "
            f"needs {', '.join(wanted)}."
        )


def _read(path: Path, wanted: Sequence[str]) -> pl.DataFrame:
    _is_parquet(path)
    frame = pl.read_parquet(path)
    _require(path, frame.schema, wanted)
    have = frame.columns
    return frame.rename({old: new for old, new in OTHER_NAMES.items() if old in have and new not in have})


def _part(path: Path, frame: pl.DataFrame, name: str, splits: Splits) -> pl.DataFrame:
    """The rows of one of mteb's splits.

    Raises:
        TaskDataError: There are none, or one has no text or no label.
    """
    wanted = splits.get(name, (name,))
    if "split" in frame.columns:
        part = frame.filter(pl.col("split").is_in(list(wanted))).drop("split")
    elif name == "train":
        raise TaskDataError(f"{path}: has no column `split`, so it has no `train` rows to learn from. Add it.")
    else:
        part = frame
    if part.is_empty():
        there = ", ".join(map(str, frame["split"].unique().sort())) if "split" in frame.columns else "none"
        raise TaskDataError(
            f"{path}: no rows of split {' or '.join(wanted)}; it has {there}. Say under `evaluation.splits` which "
            f"are read as `{name}`."
        )
    for column in ("label", "score", "text", "sentence1", "sentence2", "query"):
        if column in part.columns and (empty := part[column].null_count()):
            raise TaskDataError(
                f"{path}: {empty:,} of {len(part):,} rows of split {name} have no `{column}`. Fill them in, or take "
                "them out: test sets are often published without labels."
            )
    return part


def _sts(_task: Any, _path: Path, parts: Mapping[str, pl.DataFrame]) -> Any:
    return _by_split({name: part.select(COLUMNS["sts"]).cast({"score": pl.Float64}) for name, part in parts.items()})


def _classification(task: Any, path: Path, parts: Mapping[str, pl.DataFrame]) -> Any:
    names = sorted({label for part in parts.values() for label in part["label"].to_list()})
    if len(names) < 2:
        raise TaskDataError(f"{path}: all rows have the label {names[0]!r}. A classification needs two or more.")
    numbers = {name: number for number, name in enumerate(names)}
    return _by_split(
        {
            name: pl.DataFrame(
                {
                    task.input_column_name: part["text"],
                    task.label_column_name: [numbers[label] for label in part["label"]],
                    "label_text": part["label"].cast(pl.String),
                }
            )
            for name, part in parts.items()
        }
    )


def _clustering(task: Any, path: Path, parts: Mapping[str, pl.DataFrame]) -> Any:
    from mteb.abstasks.clustering_legacy import AbsTaskClusteringLegacy

    for name, part in parts.items():
        if part["label"].n_unique() < 2:
            raise TaskDataError(f"{path}: split {name} has one label only. A clustering needs two or more.")
    columns = [pl.col("text").alias(task.input_column_name), pl.col("label").alias(task.label_column_name)]
    if isinstance(task, AbsTaskClusteringLegacy):  # a row is a set to cluster
        columns = [column.implode() for column in columns]
    return _by_split({name: part.select(columns) for name, part in parts.items()})


def _pair_classification(task: Any, path: Path, parts: Mapping[str, pl.DataFrame]) -> Any:
    for name, part in parts.items():
        if set(part["label"].to_list()) != {0, 1}:
            raise TaskDataError(f"{path}: labels of split {name} are not both 0 and 1. Write 1 for pairs that belong.")
    return _by_split(
        {
            name: part.select(
                pl.col("sentence1").alias(task.input1_column_name),
                pl.col("sentence2").alias(task.input2_column_name),
                pl.col("label").cast(pl.Int64).alias(task.label_column_name),
            )
            for name, part in parts.items()
        }
    )


def _reranking(_task: Any, path: Path, parts: Mapping[str, pl.DataFrame]) -> Any:
    return {"default": {name: _candidates(path, part) for name, part in parts.items()}}


def _candidates(path: Path, part: pl.DataFrame) -> dict[str, Any]:
    documents: dict[str, str] = {}
    queries, relevant, candidates = [], {}, {}
    for number, (query, positive, negative) in enumerate(part.select(COLUMNS["reranking"]).iter_rows()):
        if not positive or not negative:
            raise TaskDataError(
                f"{path}: query {query!r} has no {'negative' if positive else 'positive'} text, so its ranking says "
                "nothing. Take it out."
            )
        ids = {f"{number}-{place}": int(place < len(positive)) for place in range(len(positive) + len(negative))}
        documents |= dict(zip(ids, [*positive, *negative], strict=True))
        queries.append({"id": f"q{number}", "text": query})
        relevant[f"q{number}"], candidates[f"q{number}"] = ids, list(ids)
    corpus = [{"id": key, "title": "", "text": text} for key, text in documents.items()]
    return retrieval_data(corpus, queries, relevant, candidates)


def _retrieval(folder: Path, split: str, splits: Splits) -> dict[str, Any]:
    corpus, queries, qrels = (_read(folder / f"{name}.parquet", columns) for name, columns in RETRIEVAL_COLUMNS.items())
    if corpus.is_empty() or not corpus["text"].str.strip_chars().str.len_chars().sum():
        raise TaskDataError(f"{folder / 'corpus.parquet'}: holds no text to search in. Fill it.")
    if "split" in qrels.columns:
        qrels = _part(folder / "qrels.parquet", qrels, split, splits)
    judged = qrels.select(pl.col("query_id", "doc_id").cast(pl.String), pl.col("score").cast(pl.Int64))
    relevant: dict[str, dict[str, int]] = {}
    for query, document, score in judged.iter_rows():
        relevant.setdefault(query, {})[document] = score
    title = pl.col("title").fill_null("") if "title" in corpus.columns else pl.lit("").alias("title")
    documents = corpus.select(pl.col("id").cast(pl.String), title, pl.col("text").fill_null(""))
    asked = queries.select(pl.col("id").cast(pl.String), "text").filter(pl.col("id").is_in(list(relevant)))
    if asked.is_empty():
        raise TaskDataError(f"{folder / 'qrels.parquet'}: names no query of queries.parquet. Correct the ids.")
    unknown = np.setdiff1d(judged["doc_id"].unique().to_numpy(), documents["id"].to_numpy())
    if len(unknown) == judged["doc_id"].n_unique():
        raise TaskDataError(f"{folder / 'qrels.parquet'}: names no text of corpus.parquet. Correct the ids.")
    return retrieval_data(documents, asked, relevant, None)


def retrieval_data(documents: Any, queries: Any, relevant: Any, candidates: Any) -> dict[str, Any]:
    """One split of a retrieval task; with `candidates`, a reranking."""
    return {
        "corpus": _dataset(documents),
        "queries": _dataset(queries),
        "relevant_docs": relevant,
        "top_ranked": candidates,
    }


def _by_split(parts: Mapping[str, pl.DataFrame]) -> Any:
    from datasets import DatasetDict

    return DatasetDict({name: _dataset(part) for name, part in parts.items()})


def _dataset(rows: Any) -> Any:
    from datasets import Dataset

    return Dataset.from_polars(rows) if isinstance(rows, pl.DataFrame) else Dataset.from_list(list(rows))


FILLERS: dict[str, Callable[[Any, Path, Mapping[str, pl.DataFrame]], Any]] = {
    "sts": _sts,
    "classification": _classification,
    "clustering": _clustering,
    "pair_classification": _pair_classification,
    "reranking": _reranking,
}
