"""The measures of each query are those of sentence-transformers' models by hand, and give mteb's score."""

import shutil

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from stella_assets.core.runner import Runner
from stella_assets.core.step import BuildContext
from stella_assets.evaluation.ranking.rankers import TrainedRanker
from stella_assets.evaluation.ranking.scorer import MAP, NDCG, RECALL, RankingScorer
from stella_assets.evaluation.ranking.steps import compare_measures
from stella_assets.pipelines.views import connect, refresh_views
from tests.evaluation.conftest import own_task
from tests.evaluation.ranking.conftest import ACTIONS, QUERIES, RERANKER, Ranked, Saved

RELEVANT = {f"q{i}": f"d{i * len(ACTIONS)}" for i in range(len(QUERIES))}


def measures(ranked: Ranked, scores: str, model: str, task: str, measure: str) -> dict[str, float]:
    rows = ranked.scores(scores).measures().filter(model=model, task=task, measure=measure)
    assert rows["query"].is_unique().all()
    return dict(zip(rows["query"], rows["value"], strict=True))


def by_hand(order: list[str], relevant: str) -> tuple[float, float]:
    """nDCG@10 and average precision of a query with one relevant document."""
    place = order.index(relevant) + 1 if relevant in order else None
    return (0.0, 0.0) if place is None else (1 / np.log2(place + 1) if place <= 10 else 0.0, 1 / place)


def texts(ranked: Ranked, name: str) -> dict[str, str]:
    frame = pl.read_parquet(ranked.places["retrieval"] / f"{name}.parquet")
    return dict(zip(frame["id"], frame["text"], strict=True))


def test_late_interaction_ranks_all_documents_by_maxsim(ranked: Ranked):
    queries, documents = texts(ranked, "queries"), texts(ranked, "corpus")
    model = ranked.models["late"]
    similarities = model.similarity(
        model.encode_query(list(queries.values())), model.encode_document(list(documents.values()))
    )
    ids = list(documents)
    ndcg, average = (measures(ranked, "late", "retriever/late", "own_retrieval", name) for name in (NDCG, MAP))
    for number, query in enumerate(queries):
        order = [ids[place] for place in np.argsort(-similarities[number].numpy(), kind="stable")]
        expected = by_hand(order, RELEVANT[query])
        assert (ndcg[query], average[query]) == pytest.approx(expected, abs=1e-5)


def test_a_reranker_ranks_the_first_documents_of_the_last_stage(ranked: Ranked):
    queries, documents = texts(ranked, "queries"), texts(ranked, "corpus")
    first = ranked.scores("dense").rankings().filter(task="own_retrieval")
    assert first["model"].unique().to_list() == ["stage_2"]
    ndcg = measures(ranked, "reranker", "retriever/reranker", "own_retrieval", NDCG)
    for query, text in queries.items():
        found = first.filter(query=query).sort("rank")["document"].to_list()[: RERANKER.reranks]
        scores = ranked.models["reranker"].predict([(text, documents[each]) for each in found])
        order = [found[place] for place in np.argsort(-scores, kind="stable")]
        assert ndcg[query] == pytest.approx(by_hand(order, RELEVANT[query])[0], abs=1e-5)


def test_a_reranker_finds_no_document_that_the_first_step_missed(ranked: Ranked):
    """Of every other query the first document is not handed on, and it is the relevant one for some of them."""
    first = ranked.scores("dense").rankings().filter(pl.col("rank") <= 5, task="own_retrieval")
    first = first.filter((pl.col("rank") > 1) | pl.col("query").is_in(["q0", "q2", "q4", "q6"]))
    kept = set(first.select("query", "document").iter_rows())
    expected = {query for query, relevant in RELEVANT.items() if (query, relevant) in kept}
    assert 0 < len(expected) < len(RELEVANT)
    assert {query for query, value in rerank(ranked, first).items() if value > 0} == expected


def test_a_reranker_gets_as_many_documents_as_it_asks_for(ranked: Ranked):
    """Three: of some queries the relevant one comes later than that."""
    assert ranked.scores("reranker").metrics["candidates"] == RERANKER.reranks == 3
    later = pl.col("query").is_in(["q1", "q5"]) & (pl.col("document") == pl.col("query").replace_strict(RELEVANT))
    first = ranked.scores("dense").rankings().filter(task="own_retrieval")
    ordered = first.with_columns(rank=pl.when(later).then(4).otherwise(pl.min_horizontal("rank", 3)))
    assert {query for query, value in rerank(ranked, ordered).items() if value == 0} == {"q1", "q5"}


def rerank(ranked: Ranked, candidates: pl.DataFrame) -> dict[str, float]:
    """Recall by query of the reranker on these candidates."""
    runner, root = ranked.runner, ranked.runner.workspace.root
    context = BuildContext("part", "key", root, root, {}, runner.workspace, runner.log, runner.compute, runner=runner)
    loaded = Saved(root, lambda _folder: ranked.models["reranker"])
    ranker = TrainedRanker(RERANKER, loaded, "weights")  # type: ignore[arg-type]
    scorer = RankingScorer("tiny", own_task("retrieval", ranked.places["retrieval"]), context, candidates)
    table = pl.from_arrow(pa.concat_tables(scorer.score("reranker", ranker).measures))
    assert isinstance(table, pl.DataFrame)
    rows = table.filter(measure=RECALL)
    return dict(zip(rows["query"], rows["value"], strict=True))


def test_a_reranking_task_gives_its_own_candidates(ranked: Ranked):
    for name in ("late", "reranker"):
        average = measures(ranked, name, f"retriever/{name}", "own_reranking", MAP)
        assert len(average) == len(RELEVANT)
        assert min(average.values()) >= 1 / 4  # four candidates of each query, and one is relevant


@pytest.mark.parametrize("name", ["late", "reranker"])
def test_samples_and_measures_give_the_score_of_mteb(name: str, ranked: Ranked):
    scores = ranked.scores(name)
    rows = {row["task"]: row for row in scores.rows().to_dicts()}
    assert {task: row["metric"] for task, row in rows.items()} == {
        "own_retrieval": "ndcg_at_10",
        "own_reranking": "map_at_1000",
    }
    for task, measure in (("own_retrieval", NDCG), ("own_reranking", MAP)):
        of_queries = measures(ranked, name, f"retriever/{name}", task, measure)
        assert np.mean(list(of_queries.values())) == pytest.approx(rows[task]["score"], abs=1e-4)
        samples = scores.samples().filter(task=task)
        assert samples["value"].mean() == pytest.approx(rows[task]["score"], abs=1e-4)
    assert {row["dimension"] for row in rows.values()} == ({128} if name == "late" else {1})


def test_scores_are_in_the_views_of_all_scores(ranked: Ranked):
    assert not refresh_views(ranked.runner.workspace).unreadable
    with connect(ranked.runner.workspace) as connection:
        of = "SELECT DISTINCT model FROM {} ORDER BY model"
        found = {view: [row[0] for row in connection.execute(of.format(view)).fetchall()]
                 for view in ("scores", "samples", "query_measures", "rankings")}  # fmt: skip
    retrievers = ["retriever/late", "retriever/reranker"]
    assert found == {
        "scores": retrievers,
        "samples": retrievers,
        "query_measures": ["base_model", *retrievers, "stage_1", "stage_2"],
        "rankings": ["stage_2"],
    }


def test_a_killed_evaluation_goes_on_at_the_next_task(ranked: Ranked):
    """The score of a task is an artefact of its own, so it is found again."""
    again = Runner(ranked.runner.workspace, ranked.runner.log, ranked.runner.compute)
    artefact = again.find(ranked.steps["late"])
    assert artefact is not None
    shutil.rmtree(artefact.folder)
    again = Runner(ranked.runner.workspace, ranked.runner.log, ranked.runner.compute)
    for step in ranked.steps["late"].dependencies:
        again.make(step)
    made = again.make(ranked.steps["late"])
    assert [step.name for step, _ in again.made] == ["retriever_scores/late"]
    assert made.digest == artefact.digest


def test_a_reproduction_is_compared_by_its_measures(ranked: Ranked, tmp_path):
    """Equal artefacts agree; one whose measures moved by two points, or that lacks a model, does not."""
    workspace = ranked.runner.workspace
    made = ranked.runner.make(ranked.steps["late"])
    assert compare_measures(made, workspace, made, workspace).tolerated
    frame = pl.read_parquet(made.folder / "measures.parquet")
    changed = {
        "moved": frame.with_columns(pl.col("value") - 0.02),
        "lacking": frame.filter(pl.col("task") != "own_retrieval"),
    }
    for name, rows in changed.items():
        (tmp_path / name).mkdir()
        rows.write_parquet(tmp_path / name / "measures.parquet")
        other = type(made)(made.name, tmp_path / name, made.manifest)
        assert not compare_measures(made, workspace, other, workspace).tolerated
