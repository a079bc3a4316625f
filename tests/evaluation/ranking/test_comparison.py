"""What the report says of retrievers: differences on the same queries, and sentences that follow their intervals."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pytest

from stella_assets.evaluation.ranking.comparison import RetrievalSummary, compare_rankers
from stella_assets.evaluation.ranking.scorer import MEASURES
from stella_assets.evaluation.render.html import render_html
from stella_assets.evaluation.render.markdown import render_markdown
from stella_assets.evaluation.render.page import Page
from stella_assets.evaluation.render.retrieval import (
    retrieval_findings,
    retrieval_plot,
    retrieval_rows,
    retrieval_task_rows,
)
from tests.core.test_markup import summary_of
from tests.evaluation.ranking.conftest import Ranked

TYPES = {"Search": "Retrieval", "Parts": "Retrieval", "Answers": "Reranking"}
DIMENSIONS = {"base_model": 384, "stage_1": 48, "retriever/late": 32, "retriever/reranker": 1}


@dataclass
class Found:
    """What an artefact of ranking scores holds."""

    frame: pl.DataFrame
    metrics: dict[str, Any] = field(default_factory=lambda: {"scores": []})

    def measures(self) -> pl.DataFrame:
        return self.frame


def rankings(model: str, mean: float, queries: int, noise: float, seed: int) -> pl.DataFrame:
    """Measures with noise that all models share, and some of their own; one task has two parts, of other sizes."""
    rows = []
    for task in TYPES:
        for part in ("a", "b") if task == "Parts" else (task,):
            count = queries if part != "b" else queries // 2
            shared = np.random.default_rng(len(part) + len(task)).normal(0, 0.1, count)
            own = np.random.default_rng(seed).normal(0, noise, count)
            values = mean + shared + own - own.mean() + (0.1 if part == "b" else 0)
            rows += [
                {"model": model, "dimension": DIMENSIONS[model], "task": task, "part": part, "measure": measure}
                | {"subset": "default", "split": "test", "query": f"q{i}", "value": float(value)}
                for measure in MEASURES
                for i, value in enumerate(values)
            ]
    return pl.DataFrame(rows)


def trained(model: str, loss: float) -> dict[str, Any]:
    """Figures of the scores of a retriever, whose training began with a loss of 2."""
    figures = {"lists_train": 1200, "steps": 80, "dev_loss_before": 2.0, "dev_loss_after": loss}
    figures |= {"dev_answer_first_before": 0.3, "dev_answer_first_after": 0.5}
    return {"scores": [{"model": model}], "training": figures}


def compared(
    late: float, reranker: float, queries: int = 400, noise: float = 0.05, loss: float = 1.5
) -> RetrievalSummary:
    dense = [rankings("base_model", 0.4, queries, 0, 0), rankings("stage_1", 0.5, queries, 0, 0)]
    given = {"retriever/late": late, "retriever/reranker": reranker}
    retrievers = [
        Found(rankings(name, mean, queries, noise, n), trained(name, loss))
        for n, (name, mean) in enumerate(given.items(), 1)
    ]
    retrievers[1].metrics["candidates"] = 100
    found = compare_rankers(Found(pl.concat(dense)), retrievers, TYPES)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_means_and_gains_are_those_of_the_queries():
    """Parts of a task have equal weight, whatever their number of queries."""
    found = compared(0.55, 0.6)
    assert [(model.type, model.model, model.first_step) for model in found.models] == [
        (kind, model, "stage_1" if (kind, model) == ("Retrieval", "retriever/reranker") else None)
        for kind in ("Retrieval", "Reranking")
        for model in DIMENSIONS
    ]
    gains = {(m.type, m.model): m.ndcg_gain and m.ndcg_gain.value for m in found.models}
    assert gains == {
        key: None if gain is None else pytest.approx(gain, abs=1e-6)
        for kind in ("Retrieval", "Reranking")
        for key, gain in {
            (kind, "base_model"): -10,
            (kind, "stage_1"): None,
            (kind, "retriever/late"): 5,
            (kind, "retriever/reranker"): 10,
        }.items()
    }
    parts = {
        name: rankings("stage_1", 0.5, 400, 0, 0).filter(task="Parts", part=name, measure="ndcg_at_10") for name in "ab"
    }
    expected = np.mean([rows["value"].to_numpy().mean() for rows in parts.values()])
    assert found.tasks["Parts"]["stage_1"] == pytest.approx(expected, abs=1e-6)
    assert found.queries == {"Retrieval": 1000, "Reranking": 400}


def test_an_interval_of_a_gain_is_that_of_the_difference_and_not_of_the_scores():
    """Noise that both models share cancels out."""
    [late] = [model for model in compared(0.55, 0.6).of_model("retriever/late") if model.type == "Reranking"]
    assert late.ndcg_gain is not None
    low, high = late.ndcg_gain.interval
    assert (high - low) / 100 < 0.6 * (late.ndcg_interval[1] - late.ndcg_interval[0])
    assert low < late.ndcg_gain.value < high


@pytest.mark.parametrize(
    ("late", "noise", "words"),
    [(0.55, 0.05, "ranks better than"), (0.45, 0.05, "ranks worse than"), (0.501, 1.0, "cannot be told from")],
)
def test_a_sentence_says_by_how_much_and_what_noise_allows(late: float, noise: float, words: str):
    found = list(retrieval_findings(compared(late, 0.6, noise=noise)))
    assert len(found) == 7
    assert found[0].startswith(f"retriever/late {words} stage_1 alone on 1,000 queries of Retrieval tasks: ")
    assert found[1].startswith("stage_1, then retriever/reranker ")
    assert found[3].startswith("retriever/reranker ")
    assert "are among the first 100 of stage_1; retriever/reranker cannot find the others." in found[6]


@pytest.mark.parametrize(
    ("late", "loss", "why"),
    [
        (0.55, 1.5, "50.0% of the dev lists, 30.0% before."),
        (0.45, 1.5, "30.0% before. So it learned its own lists, but the tasks ask for more"),
        (0.45, 1.95, "30.0% before. So it hardly learned its own lists: train longer"),
        (0.45, 2.1, "30.0% before. So it hardly learned its own lists: train longer"),
    ],
)
def test_a_retriever_that_ranks_no_better_comes_with_the_likeliest_reason(late: float, loss: float, why: str):
    [found] = [each for each in retrieval_findings(compared(late, 0.6, loss=loss)) if "retriever/late learned" in each]
    learned = (
        f"retriever/late learned from 1,200 lists in 80 steps; the dev loss went from 2 to {loss}, and the answer is "
    )
    assert found.startswith(learned)
    assert why in found
    assert ("So it" in found) == (late < 0.5)


def test_tables_and_plot_show_every_model():
    found = compared(0.55, 0.6)
    header, rows = retrieval_rows(found)
    assert len(rows) == 8
    assert {len(row) for row in rows} == {len(header)}
    assert rows[3][:2] == ["Retrieval", "stage_1, then retriever/reranker"]
    assert rows[3][5] == "+10.00"
    assert retrieval_task_rows(found)[0] == ["nDCG@10 by task", *DIMENSIONS]
    assert retrieval_plot(found).startswith(b"\x89PNG")


def test_pages_have_the_section_only_where_there_are_retrievers():
    found = compared(0.55, 0.6)
    plots = {"retrieval": retrieval_plot(found)}
    for page, shown in ((Page("text", summary_of("tiny"), "2", [], [], retrieval=found), True),
                        (Page("text", summary_of("tiny"), "2", [], []), False)):  # fmt: skip
        markdown, html = render_markdown(page), render_html(page, plots)
        assert ("## Retrieval" in markdown) == ("<h2>Retrieval</h2>" in html) == shown
        assert ("retriever/late ranks better than stage_1 alone" in markdown) == shown
        assert ("| Retrieval | stage_1, then retriever/reranker | 1 |" in markdown) == shown


def test_the_summary_of_real_rankings_agrees_with_mteb(ranked: Ranked):
    retrievers = [ranked.scores(name) for name in ("late", "reranker")]
    types = {"own_retrieval": "Retrieval", "own_reranking": "Reranking"}
    found = compare_rankers(ranked.scores("dense"), retrievers, types)
    assert found is not None
    assert (found.student, found.queries) == ("stage_2", {"Retrieval": 8, "Reranking": 8})
    for scores in retrievers:
        rows = {row["task"]: row["score"] for row in scores.rows().to_dicts()}
        model = scores.rows()["model"][0]
        assert found.tasks["own_retrieval"][model] == pytest.approx(rows["own_retrieval"], abs=1e-4)
        [reranking] = [each for each in found.of_model(model) if each.type == "Reranking"]
        assert reranking.average_precision == pytest.approx(rows["own_reranking"], abs=1e-4)


def test_without_tasks_that_rank_there_is_nothing_to_compare():
    empty = Found(rankings("stage_1", 0.5, 4, 0, 0).clear())
    assert compare_rankers(empty, [empty], {}) is None  # type: ignore[arg-type, list-item]
