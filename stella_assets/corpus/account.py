"""What happened to a text: whether the corpus has it, under which id, or which rule dropped it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stella_assets.core.runner import Runner
from stella_assets.core.step import Artefact, Step, upstream
from stella_assets.corpus.clean import repair
from stella_assets.corpus.dropped import read_dropped
from stella_assets.corpus.read import CORPUS_FILE, CorpusTexts
from stella_assets.corpus.settings import Clean
from stella_assets.corpus.shards import CleanedTexts
from stella_assets.corpus.sources.base import EXCERPT_CHARS
from stella_assets.corpus.text import text_id
from stella_assets.corpus.words import match_form, match_keys
from stella_assets.storage.polars import pl

# From 64 bits on a prefix names one text; whole ids have 128.
ID = re.compile(r"[0-9a-f]{16,32}")


@dataclass(frozen=True)
class Trace:
    """One thing that happened to a text.

    Attributes:
        id: The text's id.
        what: What happened, and in which step.
        value: What the rule measured; None where it measures nothing.
        detail: More about it, e.g. which text it is a copy of.
        source: The text's source.
        origin: Its place within the source.
        text: How it begins.
    """

    id: str
    what: str
    value: float | None
    detail: str
    source: str
    origin: str
    text: str


def explain(
    text_or_id: str,
    *,
    runner: Runner,
    clean: Clean,
    cleaned: Step[CleanedTexts],
    corpus: Step[CorpusTexts],
    later: Sequence[Step[Any]] = (),
) -> list[Trace]:
    """Everything that happened to a text, in the order of the steps.

    A text that differs only in case, punctuation or spacing counts as the same text.

    Args:
        text_or_id: The text itself, or its id, of which 16 digits are enough.
        runner: Finds the artefacts.
        clean: How the recipe repairs texts.
        cleaned: The step that reads the texts.
        corpus: The step that makes the corpus. The steps that it depends on are looked at, too.
        later: Steps after the corpus that leave texts out of training. Those not made yet are skipped.

    Returns:
        What happened, each event once; empty if no source has the text.

    Raises:
        NotMaterialisedError: The corpus was not made yet.

    Example:
        >>> explain("6dc8e2a41b90f357", runner=runner, clean=recipe.corpus.clean, cleaned=cleaned, corpus=corpus)
    """
    made = runner.require(corpus)
    texts = runner.read(cleaned)
    # Words that happen to be 16 to 32 hexadecimal digits count as an id: no real text looks like that.
    ids = [text_or_id] if ID.fullmatch(text_or_id) else _ids_of(text_or_id, clean, texts)
    before = [artefact for step in upstream(corpus) if (artefact := runner.find(step))]
    after = [artefact for step in later if (artefact := runner.find(step))]
    found: list[Trace] = []
    for key in ids:
        for artefact in before:
            found += _dropped(key, artefact, "dropped")
        found += _in_corpus(key, made)
        for artefact in after:
            found += _dropped(key, artefact, "left out of training")
    # One row of the corpus can match two of the ids, one by `id` and one by `parent`.
    return list(dict.fromkeys(found))


def _ids_of(text: str, clean: Clean, cleaned: CleanedTexts) -> list[str]:
    """The id of a text, and those of texts that differ from it only in case, punctuation and spacing."""
    repaired = repair(pl.Series([text]), clean)
    (key,) = match_keys(match_form(repaired))
    ids = [text_id(repaired[0])]
    for shard in cleaned.shards:
        # All rows of the shard, kept or not: a text that was dropped is to be explained, too.
        ids += cleaned.store.read(shard.key, ["id", "key"]).filter(pl.col("key") == key)["id"].to_list()
    return list(dict.fromkeys(ids))


def _dropped(key: str, artefact: Artefact, verb: str) -> Iterator[Trace]:
    # Malformed rows have no id; the comparison is null for them and the filter drops them.
    for row in read_dropped(artefact.folder).filter(pl.col("id").str.starts_with(key)).collect().to_dicts():
        what = f"{verb} by {artefact.name}: {row['rule']}"
        yield Trace(row["id"], what, row["value"], row["detail"] or "", row["source"], row["origin"], row["excerpt"])


def _in_corpus(key: str, corpus: Artefact) -> Iterator[Trace]:
    # A text that augmentation replaced is in the corpus only as the parent of what was made of it.
    matches = pl.col("id").str.starts_with(key) | pl.col("parent").str.starts_with(key)
    for row in pl.scan_parquet(corpus.folder / CORPUS_FILE).filter(matches).collect().to_dicts():
        made_of = f", {row['augmentation']} from {row['parent']}" if row["augmentation"] else ""
        what = f"in the corpus, split {row['split']}{made_of}"
        yield Trace(row["id"], what, None, "", row["source"], row["origin"], row["text"][:EXCERPT_CHARS])
