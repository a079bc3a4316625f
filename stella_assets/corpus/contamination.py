"""Step `contamination`: which cleaned texts hold evaluation texts, and which of them go."""

from __future__ import annotations

from functools import partial

import polars as pl
from storage.workspace import Workspace

from stella_assets.core.manifest import Check, digest
from stella_assets.core.progress import progress_bar
from stella_assets.core.step import Artefact, BuildContext, Result, Step
from stella_assets.corpus.cleaned import (
    KIND,
    Shard,
    as_dropped,
    cleaned_step,
    compact,
    excerpt,
    read_shards,
    write_dropped,
)
from stella_assets.corpus.evaluation_index import MATCHES, RULES, EvaluationIndex, evaluation_bands
from stella_assets.corpus.evaluation_sets import TEXTS_FILE, evaluation_step
from stella_assets.corpus.formats import EXCERPT
from stella_assets.corpus.text import text_id, uniform
from stella_assets.corpus.words import match_form
from stella_assets.recipe import Decontaminate, Recipe
from storage.shards import ShardStore
from storage.statistics import CONTAMINATION, write_table

CODE_VERSION = "1"
MATCHES_KIND, BANDS_KIND = "contamination", "evaluation_bands"
MATCHES_FILE = "matches.parquet"
TASKS_FILE = "tasks.parquet"
CONTAMINATED_FILE = "contaminated.parquet"
MAX_HOLDERS = 4
"""A short evaluation text that more texts hold or nearly copy is a phrase of the language and not a leak."""
PROBES = 200
PROBE_FRAME = "It was said some time ago, in a longer text about other things: {} Then the text went on for a while."


def contamination_step(recipe: Recipe) -> Step:
    """The step that makes `contamination`."""
    settings = recipe.corpus.decontaminate
    assert settings is not None
    policies = {chosen.name: {"queries": chosen.queries, "documents": chosen.documents} for chosen in settings.sets}
    return Step(
        recipe=recipe.name,
        name="contamination",
        code_version=CODE_VERSION,
        settings={**settings.settings("sets"), "policies": policies},
        needs=(cleaned_step(recipe), evaluation_step(recipe)),
        build=lambda context: find_contamination(settings, context),
    )


def find_contamination(settings: Decontaminate, context: BuildContext) -> Result:
    """Write every match with its verdict, the counts by task, and which rows of which shards go."""
    evaluation = read_evaluation(context.inputs["evaluation_texts"], settings)
    index = open_index(context.inputs["evaluation_texts"], settings, context.workspace)
    shards = read_shards(context.inputs["cleaned_texts"].folder)
    cleaned, store = ShardStore(context.workspace, KIND), ShardStore(context.workspace, MATCHES_KIND)
    about = digest([CODE_VERSION, context.inputs["evaluation_texts"].digest, settings.settings("sets")])
    found = []
    with progress_bar(sum(shard.kept for shard in shards), "contamination", "texts") as bar:
        for number, shard in enumerate(shards):
            matches = store.get(f"{shard.key}-{about}", partial(_search, cleaned, shard, index))
            found.append(_with_texts(matches.with_columns(shard=pl.lit(number, pl.UInt32)), shard, cleaned))
            bar.update(shard.kept)
    matches = _judged(pl.concat(found), evaluation, index)
    dropped = matches.filter(verdict="drop")
    _write(context, matches, dropped, _by_task(matches, evaluation))
    texts = sum(shard.kept for shard in shards)
    gone = dropped.n_unique(["shard", "row"]) if len(dropped) else 0
    context.log.info(f"contamination: {gone:,} of {texts:,} texts hold evaluation texts and go")
    missed = _missed_probes(index, evaluation["text"])
    return Result(
        metrics={
            "evaluation_texts": len(evaluation),
            "evaluation_digest": context.inputs["evaluation_texts"].digest,
            "matches": len(matches),
            "texts_dropped": gone,
            "texts_reported": matches.filter(verdict="report").n_unique(["shard", "row"]) if len(matches) else 0,
            "share_dropped": round(gone / max(texts, 1), 6),
        },
        checks=(
            Check(
                "planted_evaluation_texts_are_found",
                not missed,
                f"of {PROBES} evaluation texts, planted as they are and inside a longer text, {len(missed)} were missed"
                + "".join(f"; {text[:80]!r}" for text in missed[:3]),
            ),
        ),
    )


def read_evaluation(artefact: Artefact, settings: Decontaminate) -> pl.DataFrame:
    """The evaluation texts, with `drops` where a text that holds one goes."""
    policies = pl.DataFrame(
        [
            (chosen.name, role, policy == "drop")
            for chosen in settings.sets
            for role, policy in (("query", chosen.queries), ("document", chosen.documents))
        ],
        ["set", "role", "drops"],
        orient="row",
    )
    texts = pl.read_parquet(artefact.folder / TEXTS_FILE)
    return texts.join(policies, on=["set", "role"], how="left", maintain_order="left")


def open_index(artefact: Artefact, settings: Decontaminate, workspace: Workspace) -> EvaluationIndex:
    """The index of the evaluation texts; the costly part of it is worked out once."""
    texts = pl.read_parquet(artefact.folder / TEXTS_FILE)["text"]
    bands = ShardStore(workspace, BANDS_KIND).get(artefact.digest, partial(evaluation_bands, texts))
    return EvaluationIndex(texts, settings, bands)


def _search(cleaned: ShardStore, shard: Shard, index: EvaluationIndex) -> pl.DataFrame:
    texts = cleaned.read(shard.key, ["text"])["text"].head(shard.kept)
    return index.find(match_form(texts)) if len(texts) else MATCHES.to_frame()


def _with_texts(matches: pl.DataFrame, shard: Shard, cleaned: ShardStore) -> pl.DataFrame:
    """Matches with what the shard knows of their texts."""
    columns = ["id", "text", "section", "role", "origin"]
    if not len(matches):
        return matches.with_columns(pl.lit("").alias(name) for name in (*columns, "source"))
    texts = cleaned.read(shard.key, columns)[matches["row"].to_numpy()]
    return compact(pl.concat([matches, texts], how="horizontal").with_columns(source=pl.lit(shard.source)))


def _judged(matches: pl.DataFrame, evaluation: pl.DataFrame, index: EvaluationIndex) -> pl.DataFrame:
    """Matches with their evaluation texts and verdicts: `drop`, `report`, or `phrase` for what is common language."""
    known = evaluation.rename({"role": "evaluation_role", "text": "evaluation_text"}).with_columns(
        evaluation=pl.int_range(pl.len(), dtype=pl.UInt32), words=pl.Series(index.lengths)
    )
    joined = matches.join(known, on="evaluation", how="left")
    unequal = pl.col("rule") != "equal"
    phrase = unequal & (pl.col("words") < index.words) & (unequal.sum().over("evaluation") > MAX_HOLDERS)
    verdict = pl.when(phrase).then(pl.lit("phrase")).when("drops").then(pl.lit("drop")).otherwise(pl.lit("report"))
    return joined.with_columns(verdict=verdict).sort(
        "id", "source", "origin", "set", "task", "split", "evaluation_text"
    )


def _by_task(matches: pl.DataFrame, evaluation: pl.DataFrame) -> pl.DataFrame:
    """By task and role: evaluation texts, how many were met under which rule, and how many texts go."""
    keys = ["set", "task", "role"]
    found = matches.drop("role").rename({"evaluation_role": "role"})
    met = found.group_by(keys).agg(
        *(pl.col("evaluation").filter(pl.col("rule") == rule).n_unique().alias(rule) for rule in RULES),
        pl.struct("shard", "row").filter(pl.col("verdict") == "drop").n_unique().alias("texts_dropped"),
        pl.struct("shard", "row").filter(pl.col("verdict") == "report").n_unique().alias("texts_reported"),
        pl.col("evaluation_text").filter(pl.col("verdict") == "drop").first().str.slice(0, EXCERPT).alias("example"),
    )
    return evaluation.group_by(keys).len("texts").join(met, on=keys, how="left").sort(keys)


def _write(context: BuildContext, matches: pl.DataFrame, dropped: pl.DataFrame, tasks: pl.DataFrame) -> None:
    folder = context.folder
    shown = matches.select(
        "id", "source", pl.col("set").alias("evaluation"), "task", "split", pl.col("evaluation_role").alias("role"),
        "rule", "value", "verdict", excerpt("text").alias("excerpt"),
        excerpt("evaluation_text").alias("evaluation_excerpt"),
    )  # fmt: skip
    write_table(folder / MATCHES_FILE, CONTAMINATION, shown.to_arrow())
    tasks.with_columns(pl.col(pl.UInt32).fill_null(0)).write_parquet(folder / TASKS_FILE)
    once = dropped.unique(["shard", "row"], keep="first", maintain_order=True)
    once.select("shard", "row").sort("shard", "row").write_parquet(folder / CONTAMINATED_FILE)
    named = once.with_columns(
        rule="evaluation text, " + pl.col("rule"), detail=pl.col("task") + ": " + excerpt("evaluation_text")
    )
    write_dropped(context, [as_dropped(named)])


def _missed_probes(index: EvaluationIndex, texts: pl.Series) -> list[str]:
    """Evaluation texts of some length that are not found where they were planted."""
    long = texts.filter(index.lengths >= index.words)
    chosen = sorted(long, key=lambda text: uniform("probe", text_id(text)))[:PROBES]
    planted = pl.Series([*chosen, *(PROBE_FRAME.format(text) for text in chosen)], dtype=pl.String)
    found = set(index.find(match_form(planted))["row"]) if chosen else set()
    return [text for row, text in enumerate(chosen * 2) if row not in found]
