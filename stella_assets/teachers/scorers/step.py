"""Steps `pair_scores/<name>`: what a scorer thinks of each query with each of its candidates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stella_assets.core.devices import Compute
from stella_assets.core.errors import UserError
from stella_assets.core.manifest import Check, plain
from stella_assets.core.present import Rows, Shown
from stella_assets.core.step import (
    Artefact,
    BuildContext,
    CheckSpec,
    Deviation,
    Presentation,
    Result,
    Step,
    from_folder,
)
from stella_assets.corpus.pairs import PairTables
from stella_assets.corpus.read import CorpusTexts
from stella_assets.storage.polars import pl
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.mined_negatives import MinedNegatives
from stella_assets.teachers.scorers.base import PairScorerConfig, SavedPairModel, Scored, Scoring, TrainedModel
from stella_assets.teachers.scorers.candidates import candidate_pairs
from stella_assets.teachers.scorers.estimate import estimate_scoring
from stella_assets.teachers.snapshot import Snapshot
from stella_assets.teachers.tables import PAIR_SCORES, PAIR_SCORES_ASSET

CODE_VERSION = "1"
TABLE_REFERENCE = "scores_table.json"
"""Names the table of the store that has the scores, so that it is kept as long as this artefact."""
TOLERANCE = 1e-3
"""Largest difference that is tolerated, in standard deviations of the scores."""
SCORED = CheckSpec("every_pair_has_a_score", "No pair was left out.")
DIFFER = CheckSpec("scores_of_a_query_differ", "No query has candidates that all have the same score.")


class PairScoreTable:
    """The scores that one scorer gave.

    Args:
        folder: Of the artefact.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def scores(self) -> pl.DataFrame:
        """`query`, `document`, `score`, `split`, `origin` and `rank`, by query and rank; see `candidate_pairs`."""
        return pl.read_parquet(self.folder / PAIR_SCORES.file).drop("scorer")


def pair_scores_step(
    recipe: str,
    *,
    scorer: PairScorerConfig,
    pairs: Step[PairTables],
    mined_negatives: Step[MinedNegatives] | None,
    corpus: Step[CorpusTexts],
    concatenation: Step[Snapshot],
    retriever: Step[SavedPairModel] | None = None,
) -> Step[PairScoreTable]:
    """The step that scores the candidates of all queries.

    Args:
        recipe: Name of the recipe.
        scorer: Its settings.
        pairs: Queries and what answers them.
        mined_negatives: Further candidates.
        corpus: The texts.
        concatenation: The teachers' stored vectors, for kinds that read them.
        retriever: The retriever that `scored_by` names.
    """
    snapshot = concatenation if scorer.reads_vectors else None
    inputs = (pairs, mined_negatives, corpus, snapshot, retriever)

    def build(context: BuildContext) -> Result:
        mined = context.read(mined_negatives) if mined_negatives else None
        candidates = candidate_pairs(context.read(pairs), mined)
        scoring = Scoring(
            texts=context.read(corpus),
            workspace=context.workspace,
            compute=context.compute.on_behalf_of(recipe),
            log=context.log,
            snapshot=context.read(snapshot) if snapshot else None,
            retriever=_trained(retriever, context) if retriever else None,
        )
        return _write(scorer, candidates, scorer.score(candidates, scoring), context)

    return Step(
        recipe=recipe,
        name=f"{PAIR_SCORES_ASSET}/{scorer.name}",
        code_version=CODE_VERSION,
        settings=scorer.identity_settings(),
        dependencies=tuple(step for step in inputs if step is not None),
        # This hook gets no device: the machine's best one decides the number format `auto`.
        external_versions=lambda _workspace: scorer.external_versions(Compute()),
        build=build,
        read=from_folder(PairScoreTable),
        pool="encoding",
        estimate=lambda runner, last, _size: estimate_scoring(scorer, pairs, mined_negatives, corpus, runner, last),
        compare=_compare,
        tells=lambda last: plain(scorer.identity_settings()) == last.identity.settings,
        presentation=Presentation(
            group="teachers",
            kinds=frozenset({"parquet"}) | scorer.icons,
            description=f"Scores of queries with their candidates, by `{scorer.name}` ({scorer.kind}).",
            checks=(SCORED, DIFFER),
            show=_show,
        ),
    )


def _trained(retriever: Step[SavedPairModel], context: BuildContext) -> TrainedModel:
    return TrainedModel(context.artefact(retriever).digest, context.read(retriever).load)


def _write(scorer: PairScorerConfig, candidates: pl.DataFrame, scored: Scored, context: BuildContext) -> Result:
    rows = candidates.with_columns(score=pl.Series(scored.scores_N), scorer=pl.lit(scorer.name))
    rows = rows.filter(np.isfinite(scored.scores_N))
    if candidates.height and not rows.height:
        reasons = "; ".join(f"{reason}: {count:,}" for reason, count in scored.left_out.items())
        raise UserError(
            f"pair_scores {scorer.name!r}: none of {candidates.height:,} pairs has a score ({reasons}).",
            "Mend what is named, or remove the scorer.",
        )
    PAIR_SCORES.write(context.folder, rows.select(PAIR_SCORES.schema.names).to_arrow())
    if scored.table:
        (context.folder / TABLE_REFERENCE).write_text(json.dumps({"table": scored.table}))
    metrics = {**_measure(rows), "left_out": dict(scored.left_out), **scored.metrics}
    context.log.info(f"{PAIR_SCORES_ASSET}/{scorer.name}: {rows.height:,} of {candidates.height:,} pairs have a score")
    left_out, equal = candidates.height - rows.height, metrics["equal_lists"]
    return Result(
        metrics=metrics,
        checks=(
            Check(SCORED.name, not left_out, f"{left_out:,} of {candidates.height:,} pairs have no score"),
            Check(DIFFER.name, not equal, f"{equal:,} of {metrics['lists']:,} lists teach nothing"),
        ),
    )


def _measure(rows: pl.DataFrame) -> dict[str, Any]:
    """How many scores there are, and what they are worth to a student: lists are queries with several candidates."""
    positive = pl.col("origin") == "positive"
    of_query = rows.group_by("query").agg(
        candidates=pl.len(),
        spread=pl.max("score") - pl.min("score"),
        answer=pl.col("score").filter(positive).max(),
        other=pl.col("score").filter(~positive).max(),
    )
    lists = of_query.filter(pl.col("candidates") > 1)
    judged = of_query.drop_nulls(["answer", "other"])
    return {
        "pairs": rows.height,
        "queries": of_query.height,
        "lists": lists.height,
        "equal_lists": lists.filter(pl.col("spread") == 0).height,
        # A scorer that puts a negative above every answer contradicts the pairs.
        "answer_first": judged.select((pl.col("answer") > pl.col("other")).mean()).item(),
        "margin": judged.select((pl.col("answer") - pl.col("other")).mean()).item(),
    }


def _compare(before: Artefact, _one: Workspace, after: Artefact, _other: Workspace) -> Deviation:
    """Other hardware rounds otherwise: scores count as the same where that is little against their spread."""
    tables = [pl.read_parquet(each.folder / PAIR_SCORES.file) for each in (before, after)]
    if not tables[0].drop("score").equals(tables[1].drop("score")):
        return Deviation(False, "other pairs have scores")
    spread = float(tables[0]["score"].std() or 0.0)  # type: ignore[arg-type] # of floats
    largest = float((tables[0]["score"] - tables[1]["score"]).abs().max() or 0.0)  # type: ignore[arg-type]
    words = f"largest difference of a score {largest:.2g}, of a standard deviation of {spread:.2g}"
    return Deviation(largest <= TOLERANCE * spread, words)


def _show(artefact: Artefact) -> Mapping[str, Shown]:
    table = pl.read_parquet(artefact.folder / PAIR_SCORES.file)
    rows = table.group_by("split", "origin").agg(
        pairs=pl.len(), mean=pl.mean("score"), least=pl.min("score"), most=pl.max("score")
    )
    return {"scores": Rows(rows.sort("split", "origin").to_dicts())}
