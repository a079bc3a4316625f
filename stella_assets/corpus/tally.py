"""Counts what is written into the corpus, and what is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TypedDict

from stella_assets.core.manifest import Check
from stella_assets.corpus.dropped import read_dropped
from stella_assets.corpus.words import match_form, match_keys, sorted_distinct
from stella_assets.storage.keys import find_sorted
from stella_assets.storage.polars import pl

SPLITS = ("train", "dev", "test")


class FunnelRow(TypedDict):
    """How many texts of a source met a rule."""

    source: str
    rule: str
    texts: int


class Tally:
    """What was written.

    Args:
        forbidden: Evaluation texts that must not be written.

    Attributes:
        texts: Texts.
        queries: Texts that are queries.
        augmented: Texts that were made of other texts.
        chars: Characters of all texts.
        bytes: Of all texts, in UTF-8.
        splits: Texts by split.
        sources: Texts by source.
        licences: Texts by licence and source.
        ids_ascend: Whether each id is above the one before.
        forbidden: Texts that differ from an evaluation text at most in case, punctuation and spacing.
    """

    def __init__(self, forbidden: pl.Series) -> None:
        self.texts = self.chars = self.bytes = self.queries = self.augmented = self.forbidden = 0
        self.splits: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.licences: Counter[tuple[str, str]] = Counter()
        self.ids_ascend = True
        self._last = ""
        self._evaluation_texts = len(forbidden)
        self._forbidden = sorted_distinct(match_keys(match_form(forbidden)))

    def add(self, texts: pl.DataFrame) -> None:
        """Count a part; parts come in the order of ids."""
        if texts.is_empty():
            return
        ids = texts["id"]
        # Strictly ascending ids are unique, so no set of all ids is needed.
        self.ids_ascend &= bool(self._last < ids[0] and (ids.slice(1) > ids.head(-1)).all())
        self._last = ids[-1]
        self.texts += len(texts)
        self.chars += int(texts["text"].str.len_chars().sum())
        self.bytes += int(texts["text"].str.len_bytes().sum())
        self.queries += int((texts["role"] == "query").sum())
        self.augmented += int((texts["augmentation"] != "").sum())
        self.splits.update(dict(texts["split"].value_counts().iter_rows()))
        self.sources.update(dict(texts["source"].value_counts().iter_rows()))
        counts = texts.group_by("licence", "source").len()
        self.licences.update({(licence, source): n for licence, source, n in counts.iter_rows()})
        # A second look by exact keys, which does not depend on the index that the texts went through before.
        if len(self._forbidden):
            self.forbidden += int(find_sorted(self._forbidden, texts["key"].to_numpy())[1].sum())

    def licence_table(self) -> pl.DataFrame:
        """`licence`, `source` and `texts`."""
        rows = sorted((*key, n) for key, n in self.licences.items())
        return pl.DataFrame(rows, ["licence", "source", "texts"], orient="row")

    def metrics(self) -> dict[str, int | float | list[str]]:
        """The figures of the manifest."""
        return {
            "texts": self.texts,
            **{f"texts_{split}": self.splits[split] for split in SPLITS},
            "queries": self.queries,
            "augmented": self.augmented,
            "mean_chars": round(self.chars / self.texts, 1),
            "mean_bytes": round(self.bytes / self.texts, 1),
            "licences": sorted({licence for licence, _ in self.licences}),
        }

    def checks(self, splits: Collection[str]) -> tuple[Check, ...]:
        """What was tested while the corpus was written.

        Args:
            splits: Those that the recipe asks for.
        """
        return (
            Check("ids_are_unique", self.ids_ascend, "every text is there once"),
            Check(
                "every_split_has_texts",
                all(self.splits[split] for split in splits),
                f"splits: { {split: self.splits[split] for split in SPLITS} }",
            ),
            Check(
                "no_evaluation_text_is_there",
                not self.forbidden,
                f"{self.forbidden:,} of {self.texts:,} texts equal one of {self._evaluation_texts:,} evaluation texts"
                if self._evaluation_texts
                else "the recipe names no evaluation set whose texts are dropped",
                {"equal": self.forbidden},
            ),
        )


def funnel(read: Counter[str], dropped: Iterable[Path], kept: Counter[str]) -> list[FunnelRow]:
    """Counts by source and rule: `read`, what each rule dropped, and `kept`.

    Args:
        read: Rows read, by source.
        dropped: Folders of artefacts that have a table of dropped texts.
        kept: Texts of the corpus, by source.

    Returns:
        Rows by source and rule. With augmentation, the rows of a source need not add up: one text becomes several.
    """
    counts: Counter[tuple[str, str]] = Counter()
    counts.update({(source, "read"): count for source, count in read.items()})
    for folder in dropped:
        rules = read_dropped(folder).group_by("source", "rule").len().collect()
        counts.update({(source, rule): count for source, rule, count in rules.iter_rows()})
    counts.update({(source, "kept"): count for source, count in kept.items()})
    return [{"source": source, "rule": rule, "texts": n} for (source, rule), n in sorted(counts.items())]
