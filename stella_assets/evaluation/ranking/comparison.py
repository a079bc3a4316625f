"""How much better retrievers rank than the dense student, and how certain it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stella_assets.evaluation.bootstrap import Model, interval
from stella_assets.evaluation.ranking.scorer import MAP, NDCG, RANKING_TYPES, RECALL
from stella_assets.evaluation.scoreboard import Scoreboard
from stella_assets.evaluation.summary import ALL_TASKS, Difference, Interval, SummaryPart
from stella_assets.storage.polars import pl
from stella_assets.training.retrievers.base import DEPTH

if TYPE_CHECKING:
    from stella_assets.evaluation.ranking.steps import RankingScores


class RankerSummary(SummaryPart):
    """How a model ranks, as the mean over the tasks of a type.

    Attributes:
        type: mteb's task type.
        model: Its name.
        dimension: Of its vectors; 1 for a reranker.
        first_step: The model whose first documents it ranks; None where it searches, or where the tasks give documents.
        reranks: How many of them; None like `first_step`.
        found: The share of relevant documents among them; None like `first_step`.
        ndcg: nDCG@10, between 0 and 1.
        ndcg_interval: The middle 95% of its resamples over queries.
        average_precision: Mean average precision, of the first documents.
        average_precision_interval: The middle 95% of its resamples.
        ndcg_gain: Over the dense student; None for itself.
        average_precision_gain: The same.
    """

    type: str
    model: str
    dimension: int
    first_step: str | None
    reranks: int | None
    found: Difference | None
    ndcg: float
    ndcg_interval: Interval
    average_precision: float
    average_precision_interval: Interval
    ndcg_gain: Difference | None
    average_precision_gain: Difference | None


class TrainingSummary(SummaryPart):
    """What a retriever learned from, and how well.

    Attributes:
        lists_train: Queries with their candidates.
        steps: Batches of lists.
        dev_loss_before: Before the training, the loss of the dev lists.
        dev_loss_after: After it.
        dev_answer_first_before: Before the training, the share of dev lists whose answer scored highest.
        dev_answer_first_after: After it.
    """

    lists_train: int
    steps: int
    dev_loss_before: float
    dev_loss_after: float
    dev_answer_first_before: float
    dev_answer_first_after: float


class RetrievalSummary(SummaryPart):
    """How the models of a recipe rank documents.

    Attributes:
        student: The dense student that retrievers are compared with: the last stage.
        depth: Documents that the mean average precision looks at.
        queries: By task type.
        models: Of each task type, dense models first.
        tasks: By task, nDCG@10 of each model.
        training: Of each retriever, by its model.
    """

    student: str
    depth: int
    queries: dict[str, int]
    models: tuple[RankerSummary, ...]
    tasks: dict[str, dict[str, float]]
    training: dict[str, TrainingSummary]

    def of_model(self, name: str) -> list[RankerSummary]:
        """A model on each task type."""
        return [model for model in self.models if model.model == name]


def compare_rankers(
    dense: RankingScores, retrievers: Sequence[RankingScores], types: Mapping[str, str]
) -> RetrievalSummary | None:
    """Compare retrievers with the dense models, on the same resamples of the queries.

    Args:
        dense: Base model and stages; the last stage is the student.
        retrievers: In the order in which they are shown.
        types: Of the tasks.

    Returns:
        The comparison; None where no task ranks documents.
    """
    rows = pl.concat([dense.measures(), *(each.measures() for each in retrievers)])
    if rows.is_empty():
        return None
    order = rows["model"].unique(maintain_order=True).to_list()
    student = dense.measures()["model"].unique(maintain_order=True).to_list()[-1]
    ndcg, average, recall = (_board(rows.filter(measure=name), types, order) for name in (NDCG, MAP, RECALL))
    made = {row["model"]: each.metrics for each in retrievers for row in each.metrics["scores"]}
    groups = {kind: tasks for kind, tasks in ndcg.groups.items() if kind != ALL_TASKS}
    asked = rows.filter(measure=NDCG, model=student)
    return RetrievalSummary(
        student=student,
        depth=DEPTH,
        queries={kind: len(asked.filter(pl.col("task").is_in(tasks))) for kind, tasks in groups.items()},
        models=tuple(
            _summary(model, kind, tasks, student, (ndcg, average, recall), made.get(model[0], {}).get("candidates"))
            for kind, tasks in groups.items()
            for model in ndcg.models
        ),
        tasks={task: {model[0]: round(ndcg.points[model][task], 6) for model in ndcg.models} for task in ndcg.types},
        training={model: TrainingSummary(**metrics["training"]) for model, metrics in made.items()},
    )


def _board(rows: pl.DataFrame, types: Mapping[str, str], order: Sequence[str]) -> Scoreboard:
    """Scores of one measure, whose samples are the queries."""
    samples = rows.rename({"query": "sample"}).with_columns(statistic=pl.lit("mean"), gold=pl.lit(0.0))
    # As in mteb: queries are averaged within a part, subset and split, and then these.
    means = rows
    for keys in (["part", "subset", "split"], ["part"], []):
        means = means.group_by(["model", "dimension", "task", *keys], maintain_order=True).agg(pl.col("value").mean())
    tasks = sorted(rows["task"].unique(maintain_order=True), key=lambda task: RANKING_TYPES.index(types[task]))
    points = [
        {"model": row["model"], "dimension": row["dimension"], "task": task, "type": types[task], "score": row["value"]}
        for task in tasks
        for row in means.filter(task=task).to_dicts()
    ]
    return Scoreboard(points, {name: samples.filter(model=name) for name in order}, order)


def _summary(
    model: Model,
    kind: str,
    tasks: list[str],
    student: str,
    boards: tuple[Scoreboard, Scoreboard, Scoreboard],
    reranks: int | None,
) -> RankerSummary:
    ndcg, average, recall = boards
    own, last = _share(ndcg, model, tasks), ndcg.full(student)
    precision = _share(average, model, tasks)
    same, second = model == last, reranks is not None and kind == "Retrieval"
    return RankerSummary(
        type=kind,
        model=model[0],
        dimension=model[1],
        first_step=student if second else None,
        reranks=reranks if second else None,
        # It loses none of what it gets, so its recall is that of the first step at this depth.
        found=_share(recall, model, tasks) if second else None,
        ndcg=own.value,
        ndcg_interval=own.interval,
        average_precision=precision.value,
        average_precision_interval=precision.interval,
        ndcg_gain=None if same else ndcg.difference(model, last, tasks),
        average_precision_gain=None if same else average.difference(model, last, tasks),
    )


def _share(board: Scoreboard, model: Model, tasks: list[str]) -> Difference:
    means_R = board.resampled_means(model, tasks)
    return Difference(value=round(board.mean(model, tasks), 6), interval=interval(means_R))
