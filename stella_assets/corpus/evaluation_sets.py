"""Reading evaluation sets: mteb tasks by name, and local folders of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from stella_assets.corpus.errors import EvaluationSetError
from stella_assets.corpus.settings import EvaluationSet
from stella_assets.storage.canonical import digest
from stella_assets.storage.files import file_digest_unless_changed
from stella_assets.storage.polars import pl

# Columns of the data sets behind mteb's task types; the role decides which policy of a set applies.
QUERY_COLUMNS = ("sentence1", "sentence2", "text", "query", "sentences", "text1", "text2", "summary", "question")
DOCUMENT_COLUMNS = ("positive", "negative", "title", "human_summaries", "machine_summaries")
Row = tuple[str, str, str, str, str]
"""(set, task, split, role, text)."""


def set_digest(chosen: EvaluationSet) -> str:
    """Digest of the files of a local set, or of the revisions that mteb pins its tasks to.

    Args:
        chosen: Names mteb tasks or a local folder.

    Raises:
        EvaluationSetError: There is no such folder or task.
    """
    if chosen.path:
        folder, files = _files(chosen)
        return digest([[path.relative_to(folder).as_posix(), file_digest_unless_changed(path)] for path in files])
    # From mteb's metadata: nothing is downloaded to find out whether the artefact is current.
    return digest([[task.metadata.name, task.metadata.revision] for task in _mteb_tasks(chosen)])


def read_set(chosen: EvaluationSet) -> Iterator[Row]:
    """(set, task, split, role, text) of every text of a set; passages of retrieval and reranking are documents.

    Args:
        chosen: Names mteb tasks or a local folder, and splits.

    Yields:
        Texts as the set has them, not normalised; the same text can occur several times.

    Raises:
        EvaluationSetError: A file has no column of texts, or no such split.
    """
    if chosen.path:
        rows = _read_folder(chosen)
    else:
        rows = chain.from_iterable(_read_mteb(task) for task in _mteb_tasks(chosen))
    seen, found = set(), False
    for task, split, role, text in rows:
        # Splits are known only while reading; a text without one belongs to every choice of splits.
        seen.add(split)
        if not chosen.splits or split in chosen.splits or not split:
            found = True
            yield chosen.name, task, split, role, text
    if not found:
        raise EvaluationSetError(
            f"evaluation set {chosen.name!r}: no text in splits {', '.join(chosen.splits) or 'of any name'}; there are "
            f"{', '.join(sorted(seen)) or 'none'}.",
            "Correct `splits` or `path`.",
        )


def _files(chosen: EvaluationSet) -> tuple[Path, list[Path]]:
    folder = chosen.resolve(chosen.path or "")
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise EvaluationSetError(
            f"{folder}: evaluation set {chosen.name!r} has no Parquet file there.",
            "Correct `path`; a relative path counts from the recipe.",
        )
    return folder, files


def _read_folder(chosen: EvaluationSet) -> Iterator[tuple[str, str, str, str]]:
    _, files = _files(chosen)
    for path in files:
        # Relevance judgements: ids and scores, no texts.
        if path.stem == "qrels":
            continue
        # A retrieval task is a folder; any other file is a task of its own.
        retrieval = path.stem in ("corpus", "queries")
        task = path.parent.name if retrieval else path.stem
        try:
            frame = pl.read_parquet(path)
        except (pl.exceptions.ComputeError, OSError) as error:
            raise EvaluationSetError(f"{path}: not a Parquet file ({error}).", "Remove or replace it.") from None
        if path.stem == "corpus":
            yield from _passages(frame, task)
            continue
        columns = [name for name in (*QUERY_COLUMNS, *DOCUMENT_COLUMNS) if name in frame.columns]
        if not columns:
            raise EvaluationSetError(
                f"{path}: no column of texts; it has {', '.join(frame.columns)}.",
                f"Name it one of {', '.join(QUERY_COLUMNS + DOCUMENT_COLUMNS)}.",
            )
        splits = frame["split"].to_list() if "split" in frame.columns else [""] * len(frame)
        for column in columns:
            role = "document" if column in DOCUMENT_COLUMNS else "query"
            for split, value in zip(splits, frame[column].to_list(), strict=True):
                yield from ((task, split, role, text) for text in _texts(value))


def _passages(frame: pl.DataFrame, task: str) -> Iterator[tuple[str, str, str, str]]:
    titles = frame["title"] if "title" in frame.columns else [""] * len(frame)
    # Models encode the title with the text; how the two are joined does not matter to the match form.
    for title, text in zip(titles, frame["text"], strict=True):
        yield task, "", "document", f"{title or ''}\n{text or ''}".strip()


def _texts(value: Any) -> Iterator[str]:
    """Texts in a cell: one, or lists of them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def tasks_named(name: str) -> Sequence[Any]:
    """mteb's task of a name, or all tasks of a benchmark; none holds data yet.

    Args:
        name: Of a task or a benchmark, e.g. `SciFact` or `MTEB(eng, v1)`.

    Raises:
        KeyError: mteb has neither; its text names similar tasks.
    """
    import mteb

    # Benchmarks come first: `get_task` fails for their names, with a hint at tasks only.
    if name in {benchmark.name for benchmark in mteb.get_benchmarks()}:
        tasks: Sequence[Any] = mteb.get_benchmark(name).tasks
        return tasks
    return [mteb.get_task(name)]


def _mteb_tasks(chosen: EvaluationSet) -> list[Any]:
    try:
        tasks = [task for name in chosen.tasks for task in tasks_named(name)]
    except KeyError as error:
        raise EvaluationSetError(
            f"evaluation set {chosen.name!r}: mteb has no such task or benchmark ({str(error.args[0])[:500]}).",
            "Correct `tasks`.",
        ) from None
    # An aggregate, e.g. CQADupstackRetrieval, has no data of its own.
    return [part for task in tasks for part in (task.tasks if task.is_aggregate else (task,))]


def _read_mteb(task: Any) -> Iterator[tuple[str, str, str, str]]:
    """Texts of an mteb task: columns of its rows, or queries and passages of retrieval and reranking."""
    try:
        task.load_data()
    # `datasets` raises ValueError for data that is neither in the cache nor reachable.
    except (OSError, ValueError) as error:
        raise EvaluationSetError(
            f"mteb task {task.metadata.name}: its data cannot be loaded ({' '.join(str(error).split())[:99]}).",
            "Connect to the hub, or give a local folder as `path`.",
        ) from None
    name = task.metadata.name
    for split, content in _splits(task.dataset):
        if isinstance(content, Mapping) and "corpus" in content:
            for passage in content["corpus"]:
                yield name, split, "document", f"{passage.get('title') or ''}\n{passage['text']}".strip()
            for query in content["queries"]:
                yield from ((name, split, "query", text) for text in _texts(query["text"]))
            continue
        for row in content:
            for column, value in row.items():
                role = "document" if column in DOCUMENT_COLUMNS else "query"
                if column in QUERY_COLUMNS + DOCUMENT_COLUMNS:
                    yield from ((name, split, role, text) for text in _texts(value))


def _splits(dataset: Any) -> Iterator[tuple[str, Any]]:
    """(split, content) of a task's data, which is a mapping by split, or by subset and split."""
    for name, content in dataset.items():
        if isinstance(content, Mapping) and "corpus" not in content:
            yield from _splits(content)
        else:
            yield name, content
