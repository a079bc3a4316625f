"""Which pairs stay: each rule drops some, and the first that a pair breaks is the reason."""

from __future__ import annotations

from typing import Any

from stella_assets.storage.polars import pl

PREFIX = 16
"""Digits of an id by which the table of dropped texts names the text that stays."""


def judge_pairs(rows: pl.DataFrame, corpus: pl.DataFrame, dropped: pl.DataFrame) -> pl.DataFrame:
    """What becomes of each pair.

    Args:
        rows: `source`, `query`, `document`, `negative`, `score`, `origin`, and the ids `query_id` and `id`, null for
            empty texts.
        corpus: `id` and `split` of its texts.
        dropped: The texts that other steps removed, with `id`, `rule` and `detail`.

    Returns:
        The rows in their order. `kind` is `pair`, `scored` or `negative`. `rule` says why a row is dropped, and is null
        for those that stay; `detail` says more. `query_id` and `id` are those of the texts that the corpus has: it has
        one of texts that differ in case, punctuation and spacing only. `split` is that of the query.
    """
    kind = pl.when("negative").then(pl.lit("negative")).when(pl.col("score").is_null()).then(pl.lit("pair"))
    frame = rows.with_columns(kind=kind.otherwise(pl.lit("scored")))
    reasons = dropped.filter(pl.col("id").is_not_null()).select("id", "rule", "detail").unique("id", keep="first")
    for side in ("query", "document"):
        frame = _in_corpus(frame, side, corpus, reasons)
    second = pl.col("kind").replace_strict({"pair": "positive", "scored": "document", "negative": "negative"})
    frame = frame.with_columns(
        rule=pl.coalesce(
            _when(pl.col("query_text").is_null() | pl.col("document_text").is_null(), pl.lit("empty")),
            _when(pl.col("query_id").is_null(), pl.lit("query not in the corpus")),
            _when(pl.col("id").is_null(), second + " not in the corpus"),
            _when(pl.col("query_id") == pl.col("id"), "query is its own " + second),
            _when(pl.col("split") != pl.col("document_split"), pl.lit("in another split than the query")),
        ),
        detail=pl.coalesce("query_why", "document_why"),
    )
    frame = _flag(frame, ["kind", "query_id", "id"], "duplicate")
    frame = _negative_is_positive(frame)
    return _all_equal(frame).drop("query_text", "document_text", "query_why", "document_why", "document_split")


def pair_funnel(judged: pl.DataFrame) -> list[dict[str, Any]]:
    """Counts by source, kind and rule: `read`, what each rule dropped, and `kept`.

    Args:
        judged: Made by `judge_pairs`.
    """
    labels = (pl.lit("read"), pl.col("rule").fill_null("kept"))
    counts = [judged.group_by("source", "kind", rule=label).agg(pairs=pl.len()) for label in labels]
    return pl.concat(counts).sort("source", "kind", "rule").to_dicts()


def _when(broken: pl.Expr, rule: pl.Expr) -> pl.Expr:
    return pl.when(broken).then(rule)


def _in_corpus(frame: pl.DataFrame, side: str, corpus: pl.DataFrame, reasons: pl.DataFrame) -> pl.DataFrame:
    """The id that a side has in the corpus, its split, and why it has none."""
    column, split = ("query_id", "split") if side == "query" else ("id", "document_split")
    # A near copy is not replaced: it may ask about something else.
    equal = reasons.filter(pl.col("rule") == "duplicate").select(
        "id", prefix=pl.col("detail").str.extract(rf"([0-9a-f]{{{PREFIX}}})$")
    )
    by_prefix = corpus.select(prefix=pl.col("id").str.slice(0, PREFIX), kept="id", kept_split="split")
    equal = equal.join(by_prefix, on="prefix").select("id", "kept", "kept_split")
    known = pl.concat([corpus.select("id", kept="id", kept_split="split"), equal]).unique("id", keep="first")
    about = known.join(
        reasons.select("id", why=pl.concat_str("rule", pl.lit(" ("), pl.col("detail").fill_null(""), pl.lit(")"))),
        on="id",
        how="full",
        coalesce=True,
    )
    found = frame.join(about, left_on=column, right_on="id", how="left", maintain_order="left")
    return found.with_columns(
        pl.col(column).alias(f"{side}_text"),
        pl.col("kept").alias(column),
        pl.col("kept_split").alias(split),
        _when(pl.col("kept").is_null(), pl.col("why").str.strip_suffix(" ()")).alias(f"{side}_why"),
    ).drop("kept", "kept_split", "why")


def _flag(frame: pl.DataFrame, columns: list[str], rule: str) -> pl.DataFrame:
    """A rule for rows that stayed so far and equal an earlier one of them in some columns."""
    stays = pl.col("rule").is_null()
    again = stays & ~pl.struct(*columns, stays.alias("stays")).is_first_distinct()
    return frame.with_columns(rule=pl.when(again).then(pl.lit(rule)).otherwise("rule"))


def _negative_is_positive(frame: pl.DataFrame) -> pl.DataFrame:
    positives = frame.filter(pl.col("kind") == "pair", pl.col("rule").is_null()).select(
        "query_id", "id", known=pl.lit(value=True)
    )
    frame = frame.join(positives, on=["query_id", "id"], how="left", maintain_order="left")
    wrong = (pl.col("kind") == "negative") & pl.col("rule").is_null() & pl.col("known").is_not_null()
    return frame.with_columns(rule=pl.when(wrong).then(pl.lit("negative is a positive")).otherwise("rule")).drop(
        "known"
    )


def _all_equal(frame: pl.DataFrame) -> pl.DataFrame:
    """Scores of a source that are all equal put nothing in an order."""
    stays = (pl.col("kind") == "scored") & pl.col("rule").is_null()
    scores = pl.when(stays).then("score")
    equal = stays & (scores.min().over("source") == scores.max().over("source"))
    return frame.with_columns(rule=pl.when(equal).then(pl.lit("scores all equal")).otherwise("rule"))
