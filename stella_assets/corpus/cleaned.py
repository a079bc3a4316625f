"""Step `cleaned_texts`: every source read, repaired and judged, shard by shard."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from storage.workspace import Workspace

from stella_assets.core.manifest import digest
from stella_assets.core.models import load_tokenizer, model_digest
from stella_assets.core.progress import progress_bar
from stella_assets.core.step import Artefact, BuildContext, Result, Step
from stella_assets.corpus.clean import Tokens, judge, repair
from stella_assets.corpus.formats import EXCERPT
from stella_assets.corpus.sources import SourceError, SourcePart, pinned, read_source, source_digests, source_parts
from stella_assets.corpus.text import Malformed, RawText, text_id
from stella_assets.corpus.words import match_form, match_keys
from stella_assets.recipe import Corpus, FileSource, HuggingFace, PythonDocs, Recipe, Source
from storage.shards import ShardStore
from storage.sorted_rows import SortedRows, write_in_groups
from storage.statistics import DROPPED

CODE_VERSION = "3"
KIND, READINGS_KIND, DROPPED_KIND = "cleaned", "readings", "dropped"
SHARDS_FILE = "shards.parquet"
DROPPED_FILE = "dropped.parquet"
MALFORMED, UNREADABLE = "malformed", "unreadable"
"""Rules of rows, and of files."""
SHARD_TEXTS, SHARD_BYTES = 20_000, 32 * 2**20
RAW = pa.schema(
    dict.fromkeys(("text", "section", "role", "licence", "origin", "parent", "rule", "detail"), pa.string()).items()
)


@dataclass(frozen=True)
class Shard:
    """Some cleaned texts of one source.

    Attributes:
        source: The source's name.
        key: Of the shard in the store.
        read: Rows read.
        kept: Rows kept; they come first in the file.
        reading: What the source held and how it was read.
    """

    source: str
    key: str
    read: int
    kept: int
    reading: str


def cleaned_step(recipe: Recipe) -> Step:
    """The step that makes `cleaned_texts`."""
    corpus = recipe.corpus
    settings: dict[str, Any] = {
        "sources": [_reading(source) for source in corpus.sources],
        "clean": corpus.clean.settings(),
    }
    return Step(
        recipe=recipe.name,
        name="cleaned_texts",
        code_version=CODE_VERSION,
        settings=settings,
        sources=lambda _workspace: source_digests(corpus) | _tokenizer_digest(recipe),
        build=lambda context: clean_texts(recipe, context),
        present=shards_are_there,
    )


def _reading(source: Source) -> dict[str, Any]:
    """What decides which rows a source gives."""
    excluded = {"weight", "max_malformed"}
    if isinstance(source, FileSource):
        excluded |= {"path"}
    if not isinstance(source, HuggingFace):
        excluded |= {"limit"}
    return source.settings(*excluded)


def _limits_tokens(recipe: Recipe) -> bool:
    rules = (recipe.corpus.clean.document, recipe.corpus.clean.query)
    return any(rule.min_tokens or rule.max_tokens for rule in rules)


def _tokenizer_digest(recipe: Recipe) -> dict[str, str]:
    return {"tokenizer": model_digest(recipe.student)} if _limits_tokens(recipe) else {}


def shards_are_there(artefact: Artefact, workspace: Workspace) -> bool:
    """Whether every shard that an artefact names is in the store."""
    return all(ShardStore(workspace, KIND).path(shard.key).is_file() for shard in read_shards(artefact.folder))


def live_shards(workspace: Workspace) -> set[str]:
    """Keys of the shards, and of the readings, that some recipe's current cleaned texts name."""
    files = workspace.root.glob(f"*/cleaned_texts/{SHARDS_FILE}")
    return {key for file in files for shard in read_shards(file.parent) for key in (shard.key, shard.reading)}


def read_shards(folder: Path) -> list[Shard]:
    """The shards of cleaned texts, in the order in which they were read."""
    return [Shard(**row) for row in pl.read_parquet(folder / SHARDS_FILE).to_dicts()]


def clean_texts(recipe: Recipe, context: BuildContext) -> Result:
    """Write `shards.parquet`, which names the shards, and `dropped.parquet`, what was not kept and why.

    Raises:
        SourceError: A source cannot be read, or more of it is malformed than the recipe allows.
    """
    reader = _Reader(recipe, context.workspace)
    shards: list[Shard] = []
    dropped: list[pl.DataFrame] = []
    with progress_bar(0, "cleaned_texts", "texts") as bar:
        for source in recipe.corpus.sources:
            found, gone = reader.read(source, bar.update)
            read, kept = (sum(getattr(shard, what) for shard in found) for what in ("read", "kept"))
            context.log.info(f"cleaned_texts: {kept:,} of {read:,} texts kept of source {source.name}")
            shards += found
            dropped.append(gone)
    _table(shards).write_parquet(context.folder / SHARDS_FILE)
    write_dropped(context, dropped)
    return Result(
        metrics={
            "texts": sum(shard.kept for shard in shards),
            "read": sum(shard.read for shard in shards),
            "malformed": sum(int(frame["rule"].is_in([MALFORMED, UNREADABLE]).sum()) for frame in dropped),
            "shards": len(shards),
            "shards_reused": reader.reused,
        }
    )


class _Reader:
    """Reads and cleans sources; one that has not changed is not read again.

    Attributes:
        reused: Shards that were there already.
    """

    def __init__(self, recipe: Recipe, workspace: Workspace) -> None:
        self.reused = 0
        self._corpus, self._tokens = recipe.corpus, _token_counter(recipe)
        self._cleaned, self._readings = ShardStore(workspace, KIND), ShardStore(workspace, READINGS_KIND)
        self._dropped = ShardStore(workspace, DROPPED_KIND)
        self._settings = digest([CODE_VERSION, recipe.corpus.clean.settings(), _tokenizer_digest(recipe)])

    def read(self, source: Source, on_texts: Callable[[int], object]) -> tuple[list[Shard], pl.DataFrame]:
        """The shards of a source, and the texts that were not kept.

        Raises:
            SourceError: It cannot be read, or more of it is malformed than the recipe allows.
        """
        source, parts = pinned(source), source_parts(source)
        shards: list[Shard] = []
        dropped = [pl.DataFrame(DROPPED.empty_table())]
        for part in parts:
            found, gone = self._read_part(source, part, on_texts)
            shards += found
            dropped.append(gone)
        all_dropped = pl.concat(dropped)
        _require_few_malformed(source, parts, shards, all_dropped)
        return shards, all_dropped

    def _read_part(
        self, source: Source, part: SourcePart, on_texts: Callable[[int], object]
    ) -> tuple[list[Shard], pl.DataFrame]:
        reading = digest([self._settings, _reading(source), part.digest, SHARD_TEXTS])
        if all(store.path(reading).is_file() for store in (self._readings, self._dropped)):
            shards = [Shard(**row) for row in self._readings.read(reading).to_dicts()]
            if all(self._cleaned.path(shard.key).is_file() for shard in shards):
                self.reused += len(shards)
                return shards, self._dropped.read(reading)
        shards, dropped = [], [pl.DataFrame(DROPPED.empty_table())]
        for raw in _raw_shards(source, part):
            key = digest([self._settings, _content_digest(raw)])
            self.reused += self._cleaned.path(key).is_file()
            frame = self._cleaned.get(key, partial(_clean, raw, self._corpus, self._tokens))
            kept = frame["rule"].null_count()
            shards.append(Shard(source.name, key, len(frame), kept, reading))
            dropped.append(as_dropped(frame.slice(kept).with_columns(source=pl.lit(source.name))))
            on_texts(len(frame))
        gone = self._dropped.get(reading, lambda: pl.concat(dropped))
        self._readings.get(reading, lambda: _table(shards))
        return shards, gone


def _table(shards: list[Shard]) -> pl.DataFrame:
    return pl.DataFrame([vars(shard) for shard in shards], schema=_SHARDS)


_SHARDS = {"source": pl.String, "key": pl.String, "read": pl.Int64, "kept": pl.Int64, "reading": pl.String}


def as_dropped(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows of shards, with `source`, `rule`, `value` and `detail`, in the form of the table of dropped texts."""
    shown = excerpt("text", 2 * EXCERPT)
    return compact(frame.with_columns(excerpt=shown).select(DROPPED.names).cast(_DROPPED))


def excerpt(name: str, chars: int = EXCERPT) -> pl.Expr:
    """How the texts of a column begin, each in one line."""
    return pl.col(name).str.slice(0, chars).str.replace_all(r"\s+", " ")


def compact(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame in memory of its own: a few rows taken of a shard would keep all texts of it."""
    return pl.DataFrame(frame.to_arrow())


_DROPPED = pl.DataFrame(DROPPED.empty_table()).schema


def write_dropped(context: BuildContext, frames: Iterable[pl.DataFrame]) -> None:
    """Write the table of dropped texts, in an order that does not depend on shards."""
    rows = SortedRows(context.scratch / "dropped")
    for frame in frames:
        rows.add(frame)
    write_in_groups(context.folder / DROPPED_FILE, DROPPED, rows.parts(DROPPED.names))


def _token_counter(recipe: Recipe) -> Tokens | None:
    if not _limits_tokens(recipe):
        return None
    tokenizer = load_tokenizer(recipe.student)

    def count(texts: list[str]) -> list[int]:
        return [len(tokens) for tokens in tokenizer(texts, add_special_tokens=True, truncation=False)["input_ids"]]

    return count


def _raw_shards(source: Source, part: SourcePart) -> Iterator[pa.Table]:
    """Rows as they are read, in tables of bounded size."""
    rows: list[dict[str, str | None]] = []
    size = 0
    for item in read_source(source, part):
        rows.append(_raw_row(item))
        size += len(rows[-1]["text"] or "")
        if len(rows) >= SHARD_TEXTS or size >= SHARD_BYTES:
            yield pa.Table.from_pylist(rows, schema=RAW)
            rows, size = [], 0
    if rows:
        yield pa.Table.from_pylist(rows, schema=RAW)


def _raw_row(item: RawText | Malformed) -> dict[str, str | None]:
    if isinstance(item, Malformed):
        rule = UNREADABLE if item.whole_file else MALFORMED
        return {
            "text": item.excerpt, "section": "", "role": "", "origin": item.origin, "rule": rule, "detail": item.why,
        }  # fmt: skip
    return {
        "text": _encodable(item.text), "section": item.section, "role": item.role, "licence": item.licence,
        "origin": item.origin, "parent": item.parent,
    }  # fmt: skip


def _encodable(text: str) -> str:
    """JSON can spell half of a surrogate pair, which no encoding has."""
    return text.encode("utf-8", "replace").decode() if any("\ud800" <= c <= "\udfff" for c in text) else text


def _require_few_malformed(source: Source, parts: list[SourcePart], shards: list[Shard], dropped: pl.DataFrame) -> None:
    """Raise `SourceError` if more rows or files are malformed than the recipe allows."""
    if isinstance(source, PythonDocs):
        return
    rows, files = (dropped.filter(pl.col("rule") == rule) for rule in (MALFORMED, UNREADABLE))
    read = sum(shard.read for shard in shards) - len(files)
    limit = source.max_malformed  # type: ignore[attr-defined]
    for what, bad, total in (("rows", rows, read), ("files", files, sum(len(part.paths) for part in parts))):
        if len(bad) > limit * max(total, 1):
            first = bad.row(0, named=True)
            raise SourceError(
                f"source {source.name!r}: {len(bad):,} of {total:,} {what} are malformed, the recipe allows "
                f"{limit:.2%}; the first is {first['origin']}: {first['detail']}. "
                "Correct the data, or raise `max_malformed`."
            )


def _content_digest(raw: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, raw.schema) as writer:
        writer.write_table(raw.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


def _clean(table: pa.Table, corpus: Corpus, tokens: Tokens | None) -> pl.DataFrame:
    """Kept rows first, then those that are not, with `rule` and `value`."""
    raw = pl.DataFrame(table)
    whole = raw.filter(pl.col("rule").is_null()).drop("rule")
    text = repair(whole["text"], corpus.clean)
    parents = repair(whole["parent"].fill_null(""), corpus.clean)
    about = whole.select(pl.concat_str("section", "role", "licence", "origin", separator="\n")).to_series()
    cleaned = whole.with_columns(
        text=text,
        id=pl.Series(map(text_id, text), dtype=pl.String),
        key=pl.Series(match_keys(match_form(text)), dtype=pl.UInt64),
        tie=pl.Series(match_keys(about), dtype=pl.UInt64),
        parent=pl.Series([text_id(parent) if parent else None for parent in parents], dtype=pl.String),
        **dict(judge(text, whole["role"], corpus.clean, tokens).to_dict()),
    )
    broken = raw.filter(pl.col("rule").is_not_null())
    return pl.concat([cleaned, broken], how="diagonal").sort(pl.col("rule").is_not_null(), maintain_order=True)
