"""What scoring would cost, before anything is computed or sent."""

from __future__ import annotations

from stella_assets.core.manifest import Manifest
from stella_assets.core.runner import Runner
from stella_assets.core.step import Estimate, Step
from stella_assets.corpus.pairs import PairTables
from stella_assets.corpus.read import CorpusTexts
from stella_assets.teachers.forecast import with_cost
from stella_assets.teachers.mined_negatives import MinedNegatives
from stella_assets.teachers.scorers.base import PairScorerConfig
from stella_assets.teachers.scorers.candidates import candidate_pairs


def estimate_scoring(
    scorer: PairScorerConfig,
    pairs: Step[PairTables],
    mined_negatives: Step[MinedNegatives] | None,
    corpus: Step[CorpusTexts],
    runner: Runner,
    last: Manifest | None,
) -> Estimate:
    """Count the pairs, and of those of a service what is not paid yet.

    Args:
        scorer: Its settings.
        pairs: Queries and what answers them; before they are made nothing tells how many there will be.
        mined_negatives: Further candidates.
        corpus: The texts.
        runner: Finds what exists.
        last: The last artefact of the step's kind; it knows the time.
    """
    made = {step: runner.find(step) for step in (pairs, mined_negatives, corpus) if step is not None}
    if None in made.values():
        unknown = "unknown, as the pairs are not made yet" if scorer.paid else ""
        return Estimate("the pairs that are new", money=None if scorer.paid else 0.0, charges=unknown)
    mined = runner.read(mined_negatives) if mined_negatives else None
    candidates = candidate_pairs(runner.read(pairs), mined)
    seconds = None
    if last is not None and last.metrics.get("pairs"):
        seconds = float(last.run_info["seconds"]) * len(candidates) / last.metrics["pairs"]
    forecast = scorer.forecast(candidates, runner.read(corpus), runner.compute.services)
    if forecast is None:
        return Estimate(f"{len(candidates):,} pairs to score", seconds)
    work = f"{forecast.texts:,} of {len(candidates):,} pairs to score"
    return with_cost(Estimate(work, seconds if forecast.texts else 0.0, texts=forecast.texts), forecast)
