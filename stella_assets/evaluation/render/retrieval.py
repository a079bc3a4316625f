"""The part of the report on retrieval: sentences, tables and the plot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stella_assets.core.figures import COLOURS, figure
from stella_assets.evaluation.ranking.comparison import RankerSummary, RetrievalSummary, TrainingSummary
from stella_assets.evaluation.render.tables import INTERVAL, Table
from stella_assets.evaluation.summary import Difference, Interval

HARDLY = 0.05
"""Lists whose loss fell by a smaller share were hardly learned."""


def retrieval_findings(summary: RetrievalSummary) -> Iterator[str]:
    """By how much each retriever ranks better than the dense student, or that it does not, and the likeliest reason.

    Args:
        summary: Of the models.
    """
    for model in summary.models:
        if model.ndcg_gain is None or not model.model.startswith("retriever/"):
            continue
        queries = f"{summary.queries[model.type]:,} queries of {model.type} tasks"
        what = f"{ranker_name(model)} {_verdict(model.ndcg_gain)} {summary.student} alone on {queries}"
        yield f"{what}: {_points(model.ndcg_gain)} points of nDCG@10."
    for name, training in summary.training.items():
        gains = [model.ndcg_gain for model in summary.of_model(name)]
        yield f"{name} {_trained(training, better=all(gain and gain.interval[0] > 0 for gain in gains))}"
    for model in summary.models:
        if model.found is not None:
            low, high = (100 * end for end in model.found.interval)
            yield (
                f"Of the relevant documents, {100 * model.found.value:.1f}% (95%: {low:.1f}% to {high:.1f}%) are among "
                f"the first {model.reranks} of {model.first_step}; {model.model} cannot find the others."
            )


def ranker_name(model: RankerSummary) -> str:
    """A model, and the step before it where there is one."""
    return f"{model.first_step}, then {model.model}" if model.first_step else model.model


def retrieval_rows(summary: RetrievalSummary) -> Table:
    """Each model on each task type, in hundredths, with the paired difference to the dense student."""
    rows = [
        [
            model.type,
            ranker_name(model),
            str(model.dimension),
            f"{100 * model.ndcg:.2f}",
            _range(model.ndcg_interval),
            *_difference(model.ndcg_gain),
            f"{100 * model.average_precision:.2f}",
            _range(model.average_precision_interval),
            *_difference(model.average_precision_gain),
        ]
        for model in summary.models
    ]
    to_student = f"to {summary.student}"
    measured = [
        [measure, f"{measure}: {INTERVAL}", f"{measure} {to_student}", f"{measure} {to_student}: {INTERVAL}"]
        for measure in ("nDCG@10", f"MAP@{summary.depth}")
    ]
    return ["type", "model", "dimension", *measured[0], *measured[1]], rows


def retrieval_task_rows(summary: RetrievalSummary) -> Table:
    """nDCG@10 of each model on each task, in hundredths."""
    models = list(next(iter(summary.tasks.values()), ()))
    rows = [[task, *(f"{100 * scores[model]:.2f}" for model in models)] for task, scores in summary.tasks.items()]
    return ["nDCG@10 by task", *models], rows


def retrieval_plot(summary: RetrievalSummary) -> bytes:
    """nDCG@10 of each model with its interval, a colour per task type."""
    kinds = list(summary.queries)
    names = list(dict.fromkeys(model.model for model in summary.models))

    def draw(axes: Any) -> None:
        for number, kind in enumerate(kinds):
            models = [model for model in summary.models if model.type == kind]
            places = [names.index(model.model) + 0.15 * (number - (len(kinds) - 1) / 2) for model in models]
            values = [100 * model.ndcg for model in models]
            # matplotlib takes the distances to the ends; resamples of a skewed measure may all lie on one side.
            ends = [[max(0.0, 100 * sign * (model.ndcg_interval[end] - model.ndcg)) for model in models]
                    for sign, end in ((-1, 0), (1, 1))]  # fmt: skip
            axes.errorbar(values, places, xerr=ends, fmt="o", capsize=3, label=kind, color=COLOURS[number])
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel("nDCG@10 x 100, and the middle 95% of resamples of the queries")
        axes.legend(fontsize=8, frameon=False)

    return figure(7, 0.45 * len(names) + 1.2, draw)


def _trained(training: TrainingSummary, *, better: bool) -> str:
    """What a retriever learned from; and, where it ranks no better, what that says about why."""
    before, after = training.dev_loss_before, training.dev_loss_after
    learned = (
        f"learned from {training.lists_train:,} lists in {training.steps:,} steps; the dev loss went from {before:.3g} "
        f"to {after:.3g}, and the answer is first in {100 * training.dev_answer_first_after:.1f}% of the dev lists, "
        f"{100 * training.dev_answer_first_before:.1f}% before."
    )
    if better:
        return learned
    if after > (1 - HARDLY) * before:
        return f"{learned} So it hardly learned its own lists: train longer, on more lists or with a higher rate."
    return f"{learned} So it learned its own lists, but the tasks ask for more: add pairs and negatives like theirs."


def _verdict(gain: Difference) -> str:
    low, high = gain.interval
    if low > 0:
        return "ranks better than"
    return "ranks worse than" if high < 0 else "cannot be told from"


def _points(gain: Difference) -> str:
    low, high = gain.interval
    return f"{gain.value:+.2f} (95%: {low:+.2f} to {high:+.2f})"


def _range(interval: Interval) -> str:
    return f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}"


def _difference(gain: Difference | None) -> tuple[str, str]:
    return ("", "") if gain is None else (f"{gain.value:+.2f}", f"{gain.interval[0]:.2f} to {gain.interval[1]:.2f}")
