"""The steps `retriever_scores/dense` and `retriever_scores/<retriever>`: how well each model ranks documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from stella_assets.core.config import ModelSource
from stella_assets.core.manifest import Check
from stella_assets.core.models import model_digest
from stella_assets.core.present import Rows, Shown
from stella_assets.core.progress import progress_bar
from stella_assets.core.step import Artefact, BuildContext, Deviation, Presentation, Result, Step
from stella_assets.evaluation.model_scores import IN_RANGE, SCORE_TOLERANCE, SHOWN, ModelScores
from stella_assets.evaluation.ranking.scorer import RANKING_TYPES, RankingScorer
from stella_assets.evaluation.scores import BASE_MODEL, SOURCE_KEYS, stage_embedders
from stella_assets.evaluation.tables import MODEL_SAMPLES, QUERY_MEASURES, RANKINGS, SCORES
from stella_assets.evaluation.task_set import MTEB, TaskSet
from stella_assets.storage.polars import pl
from stella_assets.storage.workspace import Workspace

if TYPE_CHECKING:
    from stella_assets.evaluation.ranking.rankers import Ranker
    from stella_assets.evaluation.ranking.scorer import RankedTask
    from stella_assets.students.dense.settings import SavedStudent
    from stella_assets.students.retriever import SavedRetriever
    from stella_assets.training.retrievers.base import RetrieverConfig

CODE_VERSION = "3"
DENSE = "dense"
"""The step of the base model and the stages; no retriever has this name."""
FAMILY = "retriever_scores"
TRAINING = (
    "lists_train",
    "steps",
    "dev_loss_before",
    "dev_loss_after",
    "dev_answer_first_before",
    "dev_answer_first_after",
)
"""Figures of the training that say why a retriever ranks as it does."""


@dataclass(frozen=True)
class RankingScores(ModelScores):
    """How models rank documents, as an artefact keeps it."""

    @classmethod
    def read(cls, artefact: Artefact, _workspace: Workspace) -> RankingScores:
        """What an artefact holds."""
        return cls(artefact.folder, artefact.manifest.metrics)

    def measures(self) -> pl.DataFrame:
        """Rows of `QUERY_MEASURES`."""
        return pl.read_parquet(self.folder / QUERY_MEASURES.file)

    def rankings(self) -> pl.DataFrame:
        """Rows of `RANKINGS`: the first documents of each query, by the last stage."""
        return pl.read_parquet(self.folder / RANKINGS.file)


def retriever_model(retriever: str) -> str:
    """Name of a retriever among the scored models."""
    return f"retriever/{retriever}"


def dense_rankings_step(
    recipe: str,
    *,
    base_model: ModelSource,
    stages: Sequence[Step[SavedStudent]],
    prompts: Mapping[str, str],
    tasks: Step[TaskSet],
) -> Step[RankingScores]:
    """The step `retriever_scores/dense`: base model and stages on the tasks that rank documents, query by query.

    Their scores are those of `scores/*`, whose vectors are stored; this step adds the measures of each query, and the
    documents that the last stage hands to a reranker.

    Args:
        recipe: Name of the recipe.
        base_model: Settings that name the model that the student begins as.
        stages: In their order; each is measured with its full head.
        prompts: Of the student for tasks, by mteb's keys.
        tasks: Of the recipe.
    """

    def build(context: BuildContext) -> Result:
        from stella_assets.evaluation.base_model import BaseModelEmbedder
        from stella_assets.evaluation.ranking.rankers import DenseRanker

        embedders: dict[str, Any] = {BASE_MODEL: BaseModelEmbedder(base_model, context.workspace, context.compute)}
        for stage in stages:
            [embedders[stage.stored_as]] = stage_embedders(stage, prompts, context, all_heads=False)
        rankers = {name: DenseRanker(embedder) for name, embedder in embedders.items()}
        ranked = _score(recipe, rankers, context.read(tasks), None, context)
        last = [task.rankings for task in ranked if task.score.row["model"] == stages[-1].stored_as]
        RANKINGS.write(context.folder, _join([table for tables in last for table in tables], RANKINGS.schema))
        return _write(ranked, context.folder, {})

    source = {name: value for name, value in base_model.settings("model", "revision").items() if name in SOURCE_KEYS}
    return _step(
        recipe,
        DENSE,
        {"source": source, "prompts": dict(prompts)},
        (tasks, *stages),
        build,
        f"{MTEB} rankings by the base model and every stage, with measures of each query.",
        lambda _workspace: {"student": model_digest(base_model)},
    )


def retriever_scores_step(
    recipe: str,
    *,
    settings: RetrieverConfig,
    retriever: Step[SavedRetriever],
    dense: Step[RankingScores],
    tasks: Step[TaskSet],
) -> Step[RankingScores]:
    """The step `retriever_scores/<name>`.

    Args:
        recipe: Name of the recipe.
        settings: Of the retriever.
        retriever: That is scored.
        dense: Whose first documents it ranks on retrieval tasks, if it does not search by itself.
        tasks: Of the recipe.
    """
    model = retriever_model(settings.name)
    first_step = () if settings.reranks is None else (dense,)

    def build(context: BuildContext) -> Result:
        from stella_assets.evaluation.ranking.rankers import TrainedRanker

        loaded = context.read(retriever).load(context.compute)
        ranker = TrainedRanker(settings, loaded, context.artefact(retriever).digest)
        candidates = context.read(dense).rankings() if first_step else None
        ranked = _score(recipe, {model: ranker}, context.read(tasks), candidates, context)
        SCORES.write(context.folder, [task.score.row for task in ranked])
        samples = [table for task in ranked for table in task.score.samples]
        MODEL_SAMPLES.write(context.folder, _join(samples, MODEL_SAMPLES.schema))
        trained = context.artefact(retriever).manifest.metrics
        found: dict[str, Any] = {
            "parameters": sum(p.numel() for p in loaded.model.parameters()),
            "training": {name: trained[name] for name in TRAINING},
        }
        if candidates is not None:
            found["candidates"] = settings.reranks
        return _write(ranked, context.folder, found)

    decides = {"model": model, "kind": settings.kind, "candidates": settings.reranks}
    what = f"{MTEB} scores of `{model}`, which ranks " + (
        "the first documents of the last stage." if first_step else "all documents."
    )
    return _step(recipe, settings.name, decides, (tasks, retriever, *first_step), build, what)


def _step(
    recipe: str,
    name: str,
    settings: Mapping[str, Any],
    dependencies: tuple[Step[Any], ...],
    build: Callable[[BuildContext], Result],
    description: str,
    external_versions: Callable[[Workspace], Mapping[str, str]] | None = None,
) -> Step[RankingScores]:
    return Step(
        recipe=recipe,
        name=f"{FAMILY}/{name}",
        code_version=CODE_VERSION,
        settings=settings,
        dependencies=dependencies,
        external_versions=external_versions,
        read=RankingScores.read,
        build=build,
        compare=compare_measures,
        presentation=Presentation(
            group="evaluation", description=description, kinds=frozenset({"mteb"}), checks=(IN_RANGE,), show=_show
        ),
    )


def _show(artefact: Artefact) -> Mapping[str, Shown]:
    return {"scores": Rows(artefact.manifest.metrics["scores"])}


def _score(
    recipe: str,
    rankers: Mapping[str, Ranker],
    tasks: TaskSet,
    candidates: pl.DataFrame | None,
    context: BuildContext,
) -> list[RankedTask]:
    ranked = []
    listed = [task for task in tasks.open() if task.type in RANKING_TYPES]
    with progress_bar(len(listed) * len(rankers), next(iter(rankers)), "rankings") as bar:
        for task in listed:
            scorer = RankingScorer(recipe, task, context, candidates)
            for name, ranker in rankers.items():
                ranked.append(scorer.score(name, ranker))
                bar.update(1)
            scorer.close()
    return ranked


def _write(ranked: Sequence[RankedTask], folder: Path, metrics: Mapping[str, Any]) -> Result:
    """Write the measures of each query; the scores are shown."""
    measures = [table for task in ranked for table in task.measures]
    QUERY_MEASURES.write(folder, _join(measures, QUERY_MEASURES.schema))
    rows = [task.score.row for task in ranked]
    in_range = all(0 <= row["score"] <= 1 for row in rows)  # NaN fails, too
    return Result(
        metrics={"scores": [{name: row[name] for name in SHOWN} for row in rows], **metrics},
        checks=(Check(IN_RANGE.name, in_range, "every score lies between 0 and 1"),),
    )


def _join(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """Tables of one schema below each other; an empty one where there are none."""
    return pa.concat_tables([schema.empty_table(), *tables])


def compare_measures(before: Artefact, _its_workspace: Workspace, now: Artefact, _workspace: Workspace) -> Deviation:
    """The largest difference of a mean over queries, in points of 100; 100 where only one artefact has the mean.

    Args:
        before: The artefact that is reproduced.
        now: Its reproduction.
    """
    keys = ["model", "dimension", "task", "measure"]
    first, second = (
        pl.read_parquet(each.folder / QUERY_MEASURES.file).group_by(keys).agg(pl.col("value").mean())
        for each in (before, now)
    )
    joined = first.join(second, on=keys, how="full", suffix="_now", coalesce=True)
    points = float((100 * (joined["value"] - joined["value_now"]).abs()).fill_null(100).to_numpy().max(initial=0.0))
    measured = f"a mean over queries differs by {points:.2f} points, tolerance {SCORE_TOLERANCE:g}"
    return Deviation(points <= SCORE_TOLERANCE, measured)
