"""Reads sources into shards of cleaned texts. A part that has not changed is not read again."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa

from stella_assets.core.config import ModelSource
from stella_assets.core.models import load_tokenizer, model_digest
from stella_assets.corpus.clean import Tokens, judge, repair
from stella_assets.corpus.dropped import as_dropped, no_dropped
from stella_assets.corpus.errors import SourceError
from stella_assets.corpus.settings import Clean
from stella_assets.corpus.shards import CLEANED_KIND, Shard, shard_table, shards_in
from stella_assets.corpus.sources import Malformed, RawText, SourceConfig, SourcePart
from stella_assets.corpus.text import text_id
from stella_assets.corpus.words import match_form, match_keys
from stella_assets.storage.canonical import digest
from stella_assets.storage.polars import pl
from stella_assets.storage.shards import ShardStore
from stella_assets.storage.workspace import Workspace

CODE_VERSION = "3"
"""Of reading and cleaning: of the step, and of each shard."""
READINGS_KIND, DROPPED_KIND = "readings", "dropped"
MALFORMED, UNREADABLE = "malformed", "unreadable"
"""Rules for rows, and for files."""
# Whichever is reached first.
SHARD_TEXTS, SHARD_BYTES = 20_000, 32 * 2**20
# Strings only, all of them nullable: a malformed row has a reason but no licence.
RAW = pa.schema(
    dict.fromkeys(("text", "section", "role", "licence", "origin", "parent", "rule", "detail"), pa.string()).items()
)


def tokenizer_version(clean: Clean, tokenizer: ModelSource) -> dict[str, str]:
    """Digest of the tokenizer, as `tokenizer`; empty if no rule counts tokens."""
    return {"tokenizer": model_digest(tokenizer)} if _counts_tokens(clean) else {}


class SourceReader:
    """Reads and cleans sources.

    Args:
        clean: How texts are repaired, and which are kept.
        tokenizer: Counts tokens, if a rule limits them.
        workspace: Keeps the shards.

    Attributes:
        reused: How many shards existed already.
        rows: Rows that were read now, by source.
        lines: Lines of files that they take up.
    """

    def __init__(self, clean: Clean, tokenizer: ModelSource, workspace: Workspace) -> None:
        self.reused = 0
        self.rows: Counter[str] = Counter()
        self.lines: Counter[str] = Counter()
        self._clean, self._tokens = clean, _token_counter(tokenizer) if _counts_tokens(clean) else None
        self._cleaned, self._readings = ShardStore(workspace, CLEANED_KIND), ShardStore(workspace, READINGS_KIND)
        self._dropped = ShardStore(workspace, DROPPED_KIND)
        self._settings = digest([CODE_VERSION, clean.settings(), tokenizer_version(clean, tokenizer)])

    def read(
        self, source: SourceConfig, part: SourcePart, on_texts: Callable[[int], object]
    ) -> tuple[list[Shard], pl.DataFrame]:
        """The shards of a part, and its texts that were not kept.

        Args:
            source: Pinned, so that it reads what the part's digest describes.
            part: One of the source's parts.
            on_texts: Is told how many texts were read, shard by shard.

        Returns:
            The shards in the order of reading, and rows in the form of the table of dropped texts.

        Raises:
            SourceError: The part changed while it was read.
        """
        # Two levels of keys: an unchanged part is found by its reading without being opened; a part that has changed
        # still finds the shards in it whose content is the same.
        reading = digest([self._settings, source.reading_settings(), part.digest, SHARD_TEXTS])
        if all(store.holds(reading) for store in (self._readings, self._dropped)):
            shards = shards_in(self._readings.read(reading))
            # Garbage collection may have removed a shard, or it is damaged; then the part is read again.
            if all(self._cleaned.holds(shard.key) for shard in shards):
                self.reused += len(shards)
                return shards, self._dropped.read(reading)
        shards, dropped = [], [no_dropped()]
        for raw in _raw_shards(self._counted(source, part)):
            key = digest([self._settings, _content_digest(raw)])
            self.reused += self._cleaned.holds(key)
            frame = self._cleaned.get(key, partial(_clean, raw, self._clean, self._tokens))
            kept = frame["rule"].null_count()
            shards.append(Shard(source.name, key, len(frame), kept, reading))
            dropped.append(as_dropped(frame.slice(kept).with_columns(source=pl.lit(source.name))))
            on_texts(len(frame))
        # Or what was read would be found again under the digest of something else.
        if not source.holds(part):
            raise SourceError(f"{source.described()} changed while it was read.", "Run again, or read a copy of it.")
        all_dropped = self._dropped.get(reading, lambda: pl.concat(dropped))
        # Written last: readings that exist are complete.
        self._readings.get(reading, lambda: shard_table(shards))
        return shards, all_dropped

    def _counted(self, source: SourceConfig, part: SourcePart) -> Iterator[RawText | Malformed]:
        rows = lines = 0
        for item in source.texts(part):
            rows, lines = rows + 1, lines + item.lines
            yield item
        self.rows[source.name] += rows
        self.lines[source.name] += lines


def _counts_tokens(clean: Clean) -> bool:
    return any(rules.min_tokens or rules.max_tokens for rules in (clean.document, clean.query))


def _token_counter(source: ModelSource) -> Tokens:
    tokenizer = load_tokenizer(source)

    def count(texts: list[str]) -> list[int]:
        # As the student sees a text: special tokens count toward its limit, and a cut would hide what is too long.
        return [len(tokens) for tokens in tokenizer(texts, add_special_tokens=True, truncation=False)["input_ids"]]

    return count


def _raw_shards(items: Iterable[RawText | Malformed]) -> Iterator[pa.Table]:
    """Rows as they are read, in tables of bounded size."""
    rows: list[dict[str, str | None]] = []
    size = 0
    for item in items:
        rows.append(_raw_row(item))
        size += len((rows[-1]["text"] or "").encode("utf-8", "replace"))
        if len(rows) >= SHARD_TEXTS or size >= SHARD_BYTES:
            yield _table(rows)
            rows, size = [], 0
    if rows:
        yield _table(rows)


def _raw_row(item: RawText | Malformed) -> dict[str, str | None]:
    if isinstance(item, Malformed):
        rule = UNREADABLE if item.whole_file else MALFORMED
        return {
            "text": item.excerpt, "section": "", "role": "", "origin": item.origin, "rule": rule, "detail": item.why,
        }  # fmt: skip
    return {
        "text": item.text, "section": item.section, "role": item.role, "licence": item.licence,
        "origin": item.origin, "parent": item.parent,
    }  # fmt: skip


def _table(rows: list[dict[str, str | None]]) -> pa.Table:
    try:
        return pa.Table.from_pylist(rows, schema=RAW)
    # JSON can spell half of a surrogate pair, which no encoding has, in any value: it becomes a question mark.
    except UnicodeEncodeError:
        encodable = [{k: v and v.encode("utf-8", "replace").decode() for k, v in row.items()} for row in rows]
        return pa.Table.from_pylist(encodable, schema=RAW)


def _content_digest(raw: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, raw.schema) as writer:
        # One chunk: the bytes must depend on the content and not on how it was assembled.
        writer.write_table(raw.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


def _clean(table: pa.Table, clean: Clean, tokens: Tokens | None) -> pl.DataFrame:
    """Kept rows first, then those that are not, with `rule` and `value`."""
    raw = pl.DataFrame(table)
    whole = raw.filter(pl.col("rule").is_null()).drop("rule")
    text = repair(whole["text"], clean)
    # Repaired like a text of its own, or its id would not be the id in the corpus.
    parents = repair(whole["parent"].fill_null(""), clean)
    # What equal texts of one source are told apart by, so that their order does not depend on shards.
    about = whole.select(pl.concat_str("section", "role", "licence", "origin", separator="\n")).to_series()
    verdicts: dict[str, Any] = dict(judge(text, whole["role"], clean, tokens).to_dict())
    cleaned = whole.with_columns(
        text=text,
        id=pl.Series(map(text_id, text), dtype=pl.String),
        key=pl.Series(match_keys(match_form(text)), dtype=pl.UInt64),
        tie=pl.Series(match_keys(about), dtype=pl.UInt64),
        parent=pl.Series([text_id(parent) if parent else None for parent in parents], dtype=pl.String),
        **verdicts,
    )
    # Malformed rows are not judged: what they hold is an excerpt and not a text.
    broken = raw.filter(pl.col("rule").is_not_null())
    return pl.concat([cleaned, broken], how="diagonal").sort(pl.col("rule").is_not_null(), maintain_order=True)
