"""The step `mteb/seeds`: the same recipe trained with other seeds, so that a score has a spread."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from stella_assets.core.step import BuildContext, Result, Runner, Step, all_steps
from stella_assets.evaluation.score import SAMPLES_FILE, SCORES_FILE, score_steps, write_scores
from stella_assets.recipe import Recipe

if TYPE_CHECKING:
    from stella_assets.evaluation.summary import Scoreboard

CODE_VERSION = "1"


def seeds_step(recipe: Recipe) -> Step | None:
    """The step that trains with `evaluation.seeds` and scores the last stages; None where the recipe names none.

    Texts, vectors and tasks are those of the recipe: nothing but the training depends on a seed. Stages and scores are
    artefacts of their own, the same that a study makes, so a run that was killed goes on at the last one.
    """
    chains = {seed: _seeded_steps(recipe, seed) for seed in recipe.evaluation.seeds}
    if not chains:
        return None
    seeded = {step.name: step for chain in chains.values() for step in chain}
    needs = {need.name: need for step in seeded.values() for need in step.needs if need.name not in seeded}
    first = seeded["stage_1"]
    return Step(
        recipe=recipe.name,
        name="mteb/seeds",
        code_version=CODE_VERSION,
        settings={
            str(seed): {step.name: {"code_version": step.code_version, **step.settings} for step in chain}
            for seed, chain in chains.items()
        },
        needs=tuple(needs.values()),
        sources=first.sources,
        build=lambda context: _score_seeds(recipe, context),
    )


def _seeded_steps(recipe: Recipe, seed: int) -> list[Step]:
    """All that another seed makes anew: the stages and the scores of the last one."""
    scored = score_steps(recipe.model_copy(update={"seed": seed}))[-1]
    return [step for step in all_steps(scored) if step.name.startswith("stage_") or step is scored]


def seed_model(seed: int) -> str:
    """The name of the last stage of another seed among the scored models."""
    return f"seed_{seed}"


def _score_seeds(recipe: Recipe, context: BuildContext) -> Result:
    runner = Runner(context.workspace, context.log, context.launch, links=False)
    scores, samples = [], []
    for seed in recipe.evaluation.seeds:
        context.log.info(f"mteb/seeds: training with seed {seed}")
        *_, scored = (runner.make(step) for step in _seeded_steps(recipe, seed))
        named = pl.lit(seed_model(seed)).alias("model")
        scores.append(pl.read_parquet(scored.folder / SCORES_FILE).with_columns(named))
        samples.append(pl.read_parquet(scored.folder / SAMPLES_FILE).with_columns(named))
    return write_scores(pl.concat(scores).to_dicts(), pl.concat(samples).to_arrow(), context)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (None of one value), least and greatest of what seeds gave."""
    return {
        "seeds": len(values),
        "mean": statistics.mean(values),
        "spread": statistics.stdev(values) if len(values) > 1 else None,
        "lowest": min(values),
        "highest": max(values),
    }


def summarise_seeds(recipe: Recipe, board: Scoreboard) -> dict[str, Any]:
    """How far the last stage's scores lie apart over seeds, the recipe's own among them.

    Returns:
        `{"seeds": [{"dimension", "seeds", "mean", "spread", "lowest", "highest", "tasks": {task: spread}}]}`, scores
        between 0 and 1; empty where the recipe names no other seeds.
    """
    own = f"stage_{len(recipe.stages)}"
    names = [own, *map(seed_model, recipe.evaluation.seeds)]
    tasks = board.groups["mean"]
    rows = []
    for dim in (dim for name, dim in board.models if name == own and len(names) > 1):
        points = [board.points[name, dim] for name in names]
        means = [board.mean((name, dim), tasks) for name in names]
        by_task = {task: spread([scores[task] for scores in points])["spread"] for task in tasks}
        rows.append({"dimension": dim, **spread(means), "tasks": by_task})
    return {"seeds": rows}
