"""Step `contamination`: which cleaned texts hold evaluation texts, and which of them are removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stella_assets.core.manifest import Check
from stella_assets.core.present import Rows, Shown
from stella_assets.core.progress import progress_bar
from stella_assets.core.step import Artefact, BuildContext, CheckSpec, Presentation, Result, Step, from_folder
from stella_assets.corpus.dropped import as_dropped, compact, excerpt, show_dropped, write_dropped
from stella_assets.corpus.evaluation_index import RULES, EvaluationIndex, no_matches
from stella_assets.corpus.evaluation_texts import EvaluationTexts
from stella_assets.corpus.settings import Decontaminate
from stella_assets.corpus.shards import CleanedTexts, Shard
from stella_assets.corpus.sources.base import EXCERPT_CHARS
from stella_assets.corpus.tables import CONTAMINATION
from stella_assets.corpus.text import text_id, uniform
from stella_assets.corpus.words import match_form
from stella_assets.storage.canonical import digest
from stella_assets.storage.polars import pl
from stella_assets.storage.shards import ShardStore

CODE_VERSION = "2"
MATCHES_KIND = "contamination"
TASKS_FILE = "tasks.parquet"
CONTAMINATED_FILE = "contaminated.parquet"
MAX_HOLDERS = 4
"""A short evaluation text that more texts hold or nearly copy is a common phrase and not a leak."""
PROBES = 200
# Words around a probe, so that the rule `contained` is tested in addition to `equal`.
PROBE_FRAME = "It was said some time ago, in a longer text about other things: {} Then the text went on for a while."


@dataclass(frozen=True)
class Contamination:
    """Which texts hold evaluation texts.

    Attributes:
        folder: Of the artefact.
    """

    folder: Path

    def removed(self) -> pl.DataFrame:
        """`shard` (its number) and `row` of the texts that are removed."""
        return pl.read_parquet(self.folder / CONTAMINATED_FILE)

    def tasks(self) -> pl.DataFrame:
        """By `set`, `task` and `role`: texts, how many were found under each rule, texts dropped, and an example."""
        return pl.read_parquet(self.folder / TASKS_FILE)


def contamination_step(
    recipe: str,
    *,
    decontaminate: Decontaminate,
    cleaned: Step[CleanedTexts],
    evaluation_texts: Step[EvaluationTexts],
) -> Step[Contamination]:
    """The step that makes `contamination`.

    Args:
        recipe: Name of the recipe.
        decontaminate: What counts as holding an evaluation text, and what happens then.
        cleaned: The texts that are searched.
        evaluation_texts: The texts that are searched for.
    """
    policies = {
        chosen.name: {"queries": chosen.queries, "documents": chosen.documents} for chosen in decontaminate.sets
    }

    def build(context: BuildContext) -> Result:
        texts = context.read(cleaned)
        result = find_contamination(
            texts, context.read(evaluation_texts), decontaminate, context.folder, context.scratch
        )
        context.log.info(
            f"contamination: {result.metrics['texts_dropped']:,} of {len(texts):,} texts hold evaluation texts and are "
            "removed"
        )
        return result

    return Step(
        recipe=recipe,
        name="contamination",
        code_version=CODE_VERSION,
        settings={**decontaminate.settings("sets"), "policies": policies},
        dependencies=(cleaned, evaluation_texts),
        build=build,
        read=from_folder(Contamination),
        presentation=Presentation(
            group="corpus",
            kinds=frozenset({"polars", "parquet"}),
            description="Which texts equal, hold or nearly copy an evaluation text, and which of them are removed.",
            checks=(
                CheckSpec(
                    "planted_evaluation_texts_are_found",
                    "Evaluation texts are found where they were planted.",
                    blocking=True,
                ),
            ),
            show=_show,
        ),
    )


def find_contamination(
    cleaned: CleanedTexts, evaluation_texts: EvaluationTexts, settings: Decontaminate, folder: Path, scratch: Path
) -> Result:
    """Write every match with its verdict, the counts by task, and which rows of which shards are removed.

    Args:
        cleaned: The texts that are searched.
        evaluation_texts: The texts that are searched for.
        settings: What counts as holding an evaluation text, and what happens then.
        folder: Of the artefact.
        scratch: For temporary files.
    """
    evaluation, index = evaluation_texts.with_policies(settings.sets), evaluation_texts.index(settings)
    matches = _judged(_matches(cleaned, evaluation_texts.digest, index, settings), evaluation, index)
    dropped = matches.filter(verdict="drop")
    _write(folder, scratch, matches, dropped)
    _by_task(matches, evaluation).write_parquet(folder / TASKS_FILE)
    texts_dropped = dropped.n_unique(["shard", "row"]) if len(dropped) else 0
    # An index that finds nothing looks like a clean corpus; only planted texts tell the two apart.
    probes = _probes(index, evaluation["text"])
    missed = _missed_probes(index, probes)
    return Result(
        metrics={
            "evaluation_texts": len(evaluation),
            "evaluation_digest": evaluation_texts.digest,
            "matches": len(matches),
            "texts_dropped": texts_dropped,
            "texts_reported": matches.filter(verdict="report").n_unique(["shard", "row"]) if len(matches) else 0,
            "share_dropped": round(texts_dropped / max(len(cleaned), 1), 6),
        },
        checks=(
            Check(
                "planted_evaluation_texts_are_found",
                not missed,
                f"of {len(probes)} evaluation texts, planted as they are and inside a longer text, {len(missed)} were "
                "missed" + "".join(f"; {text[:80]!r}" for text in missed[:3]),
            ),
        ),
    )


def _matches(
    cleaned: CleanedTexts, evaluation_digest: str, index: EvaluationIndex, settings: Decontaminate
) -> pl.DataFrame:
    """All matches, shard by shard; those of a shard are computed once per evaluation texts and settings."""
    store = ShardStore(cleaned.store.workspace, MATCHES_KIND)
    # Without policies: a changed policy changes verdicts and reuses the stored matches.
    suffix = digest([CODE_VERSION, evaluation_digest, settings.settings("sets")])
    # Sources without texts have no shards, and nothing cannot be concatenated.
    found = [_with_texts(no_matches().with_columns(shard=pl.lit(0, pl.UInt32)), None, cleaned)]
    with progress_bar(len(cleaned), "contamination", "texts") as bar:
        for number, shard in enumerate(cleaned.shards):
            matches = store.get(f"{shard.key}-{suffix}", partial(_search, cleaned, shard, index))
            found.append(_with_texts(matches.with_columns(shard=pl.lit(number, pl.UInt32)), shard, cleaned))
            bar.update(shard.kept)
    return pl.concat(found)


def _search(cleaned: CleanedTexts, shard: Shard, index: EvaluationIndex) -> pl.DataFrame:
    texts = cleaned.rows(shard, ["text"])["text"]
    return index.find(match_form(texts)) if len(texts) else no_matches()


def _with_texts(matches: pl.DataFrame, shard: Shard | None, cleaned: CleanedTexts) -> pl.DataFrame:
    """Matches with what the shard knows about their texts; None for no matches at all."""
    columns = ["id", "text", "section", "role", "origin"]
    if shard is None or not len(matches):
        return matches.with_columns(pl.lit("").alias(name) for name in (*columns, "source"))
    texts = cleaned.rows(shard, columns)[matches["row"].to_numpy()]
    return compact(pl.concat([matches, texts], how="horizontal").with_columns(source=pl.lit(shard.source)))


def _judged(matches: pl.DataFrame, evaluation: pl.DataFrame, index: EvaluationIndex) -> pl.DataFrame:
    """Matches with their evaluation texts and verdicts: `drop`, `report`, or `phrase` for what is common language."""
    known = evaluation.rename({"role": "evaluation_role", "text": "evaluation_text"}).with_columns(
        evaluation=pl.int_range(pl.len(), dtype=pl.UInt32), words=pl.Series(index.lengths)
    )
    joined = matches.join(known, on="evaluation", how="left")
    unequal = pl.col("rule") != "equal"
    # Counted over the whole corpus: how many texts hold or nearly copy the evaluation text.
    phrase = unequal & (pl.col("words") < index.words) & (unequal.sum().over("evaluation") > MAX_HOLDERS)
    verdict = pl.when(phrase).then(pl.lit("phrase")).when("drops").then(pl.lit("drop")).otherwise(pl.lit("report"))
    # By content and not by shard: the tables do not depend on where shards end.
    return joined.with_columns(verdict=verdict).sort(
        "id", "source", "origin", "set", "task", "split", "evaluation_text"
    )


def _by_task(matches: pl.DataFrame, evaluation: pl.DataFrame) -> pl.DataFrame:
    """By task and role: evaluation texts, how many were found under which rule, and how many texts are removed."""
    keys = ["set", "task", "role"]
    found = matches.drop("role").rename({"evaluation_role": "role"})
    counts = found.group_by(keys).agg(
        *(pl.col("evaluation").filter(pl.col("rule") == rule).n_unique().alias(rule) for rule in RULES),
        pl.struct("shard", "row").filter(pl.col("verdict") == "drop").n_unique().alias("texts_dropped"),
        pl.struct("shard", "row").filter(pl.col("verdict") == "report").n_unique().alias("texts_reported"),
        pl.col("evaluation_text")
        .filter(pl.col("verdict") == "drop")
        .first()
        .str.slice(0, EXCERPT_CHARS)
        .alias("example"),
    )
    by_task = evaluation.group_by(keys).len("texts").join(counts, on=keys, how="left").sort(keys)
    return by_task.with_columns(pl.col(pl.UInt32).fill_null(0))


def _write(folder: Path, scratch: Path, matches: pl.DataFrame, dropped: pl.DataFrame) -> None:
    shown = matches.select(
        "id", "source", pl.col("set").alias("evaluation"), "task", "split", pl.col("evaluation_role").alias("role"),
        "rule", "value", "verdict", excerpt("text").alias("excerpt"),
        excerpt("evaluation_text").alias("evaluation_excerpt"),
    )  # fmt: skip
    CONTAMINATION.write(folder, shown.to_arrow())
    # A text that holds several evaluation texts is removed once; the first is named as the reason.
    once = dropped.unique(["shard", "row"], keep="first", maintain_order=True)
    once.select("shard", "row").sort("shard", "row").write_parquet(folder / CONTAMINATED_FILE)
    named = once.with_columns(
        rule="evaluation text, " + pl.col("rule"), detail=pl.col("task") + ": " + excerpt("evaluation_text")
    )
    write_dropped([as_dropped(named)], folder, scratch)


def _probes(index: EvaluationIndex, texts: pl.Series) -> list[str]:
    """At most `PROBES` evaluation texts of some length."""
    # Shorter texts may be left out of the index on purpose, if chance explains them.
    long = texts.filter(index.lengths >= index.words)
    return sorted(long, key=lambda text: uniform("probe", text_id(text)))[:PROBES]


def _missed_probes(index: EvaluationIndex, probes: list[str]) -> list[str]:
    """Evaluation texts that are not found where they were planted: as they are, and in the frame."""
    planted = pl.Series([*probes, *(PROBE_FRAME.format(text) for text in probes)], dtype=pl.String)
    found = set(index.find(match_form(planted))["row"]) if probes else set()
    return [text for row, text in enumerate(probes * 2) if row not in found]


def _show(artefact: Artefact) -> Mapping[str, Shown]:
    by_task = pl.read_parquet(artefact.folder / TASKS_FILE)
    return {"tasks": Rows(by_task.to_dicts()), **show_dropped(artefact)}
