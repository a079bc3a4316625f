"""What a retriever must show before it is released: by task type, that it ranks better than the dense student."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stella_assets.evaluation.held_out import held_out_types
from stella_assets.evaluation.ranking.comparison import RetrievalSummary
from stella_assets.evaluation.ranking.steps import retriever_model
from stella_assets.evaluation.settings import HELD_OUT, EvaluationSettings
from stella_assets.evaluation.tasks import EvaluationTask
from stella_assets.release.verdicts import Verdict, gains
from stella_assets.training.retrievers.base import RetrieverConfig, RetrieverError

MIN_GAIN = "min_gain"


class RetrieverGateError(RetrieverError):
    """A retriever that may not be released as it is."""


def check_min_gain(
    settings: RetrieverConfig, *, evaluation: EvaluationSettings, tasks: Iterable[EvaluationTask]
) -> None:
    """Make sure that a retriever asks for a gain on tasks that the recipe has, before anything is made.

    Args:
        settings: Of the retriever.
        evaluation: Which tasks are built from the corpus.
        tasks: The other tasks.

    Raises:
        RetrieverGateError: No task is of a type.
    """
    types = {task.type for task in tasks}
    if HELD_OUT in evaluation.tasks:
        types |= held_out_types(evaluation.held_out)
    for kind in settings.min_gain:
        if kind not in types:
            raise _no_task(settings, kind, types)


def judge_retriever(settings: RetrieverConfig, summary: RetrievalSummary | None) -> Iterator[Verdict]:
    """Compare a retriever with what its recipe asks of it.

    Args:
        settings: Of the retriever.
        summary: How it and the dense student rank; None where no task ranks documents.

    Yields:
        One verdict per task type. It passes when the whole interval is above the limit.

    Raises:
        RetrieverGateError: The recipe has no task of a type.
    """
    model = retriever_model(settings.name)
    found = {each.type: each.ndcg_gain for each in summary.of_model(model)} if summary else {}
    for kind, limit in settings.min_gain.items():
        gain = found.get(kind)
        if gain is None:
            raise _no_task(settings, kind, found)
        yield gains(MIN_GAIN, kind, limit, gain)


def require_open(name: str, verdicts: Iterable[Verdict]) -> None:
    """Stop where a verdict did not pass.

    Args:
        name: Of the retriever.
        verdicts: Of terms and gains.

    Raises:
        RetrieverGateError: One did not.
    """
    if failed := [str(verdict) for verdict in verdicts if not verdict.passed]:
        raise RetrieverGateError(
            f"retriever {name!r}: it may not be released. {'; '.join(failed)}.",
            f"Improve it, or change `{MIN_GAIN}` of the retriever in the recipe.",
        )


def _no_task(settings: RetrieverConfig, kind: str, types: Iterable[str]) -> RetrieverGateError:
    return RetrieverGateError(
        f"retriever {settings.name!r}: min_gain {kind!r}: no task is of this type.",
        f"There are {', '.join(sorted(types)) or 'no tasks that rank documents'}; add one, or remove it.",
    )
