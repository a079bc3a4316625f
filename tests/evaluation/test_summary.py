"""What the scores show, and how certain it is."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score

from stella_assets.evaluation.bootstrap import interval, resample
from stella_assets.evaluation.kinds import TaskKind
from stella_assets.evaluation.reference_scores import ReferenceScoresError, compare, read_reference_scores
from stella_assets.evaluation.render.plots import retention
from stella_assets.evaluation.samples import NO_SAMPLES, Evidence, Samples, average_precision, collect, sample
from stella_assets.evaluation.scoreboard import Scoreboard, summarise
from stella_assets.evaluation.seeds import summarise_seeds
from stella_assets.evaluation.summary import Difference, Figure, Summary

ORDER = ["teacher/minilm", "concatenation", "base_model", "stage_1"]
MEANS = {
    ("teacher/minilm", 384): 0.8,
    ("concatenation", 416): 0.9,
    ("base_model", 384): 0.5,
    ("stage_1", 416): 0.7,
    ("stage_1", 32): 0.6,
}
TASKS = (("A", "Retrieval", -0.1), ("B", "Classification", 0.1), ("C", "Classification", 0.1))


def samples_of(model: str, dimension: int, task: str, values: np.ndarray, statistic: str = "mean") -> pl.DataFrame:
    rows: dict[str, Any] = {"model": model, "dimension": dimension, "task": task, "part": task, "statistic": statistic}
    rows |= {"subset": "default", "split": "test", "sample": [f"{i}" for i in range(len(values))], "value": values}
    return pl.DataFrame(rows | {"gold": 0.0})


@pytest.fixture
def board() -> Scoreboard:
    """Scores whose samples are the model's mean plus noise that is the same for all models."""
    random = np.random.default_rng(0)
    rows, frames = [], []
    for task, kind, shift in TASKS:
        noise = random.normal(0, 0.1, 200)
        for (model, dimension), mean in MEANS.items():
            values = mean + shift + noise - noise.mean()
            frames.append(samples_of(model, dimension, task, values))
            rows.append({"model": model, "dimension": dimension, "task": task, "type": kind, "score": values.mean()})
    samples = pl.concat(frames)
    return Scoreboard(rows, {name: samples.filter(pl.col("model") == name) for name in ORDER}, ORDER)


def test_retention_and_gain_compare_full_dimensions_by_task_type(board: Scoreboard):
    summary = summarise("tiny", 0, board, ORDER)
    found = [(m.name, m.dimension, round(m.mean, 4), round(m.mean_of_types, 4)) for m in summary.models]
    third = 0.1 / 3
    assert found == [(name, dim, round(mean + third, 4), mean) for (name, dim), mean in MEANS.items()]
    assert summary.gain.value == pytest.approx(20)
    shares = {kind: share.value for kind, share in summary.retention["teacher/minilm"].items()}
    assert shares == pytest.approx({"Retrieval": 0.6 / 0.7, "Classification": 0.8 / 0.9, "mean": 2.2 / 2.5})
    assert set(summary.retention) == {"teacher/minilm", "concatenation"}


def test_the_spread_is_over_the_recipes_own_seed_and_the_others():
    points = {
        ("stage_1", 416): (0.5, 0.7),
        ("seed_7", 416): (0.5, 0.9),
        ("stage_1", 32): (0.4, 0.4),
        ("seed_7", 32): (0.4, 0.4),
    }
    rows, frames = [], []
    for (model, dimension), scores in points.items():
        for task, score in zip("AB", scores, strict=True):
            rows.append({"model": model, "dimension": dimension, "task": task, "type": "STS", "score": score})
            frames.append(samples_of(model, dimension, task, np.full(4, score)))
    samples = pl.concat(frames)
    by_model = {name: samples.filter(pl.col("model") == name) for name in ("stage_1", "seed_7")}
    full, short = summarise_seeds(Scoreboard(rows, by_model, ["stage_1", "seed_7"]), "stage_1", [7])
    assert (full.dimension, full.seeds, full.mean) == (416, 2, pytest.approx(0.65))
    assert (full.spread, full.lowest, full.highest) == pytest.approx((0.05 * 2**0.5, 0.6, 0.7))
    assert full.tasks == pytest.approx({"A": 0, "B": 0.1 * 2**0.5})
    assert short.spread == 0


def test_the_recipes_own_seed_cannot_be_one_of_the_others(raw: dict[str, Any], tmp_path: Path):
    from stella_assets.recipe import RecipeError, parse_recipe

    raw["evaluation"]["seeds"] = [1, 0]
    with pytest.raises(RecipeError, match="0 is given twice or is the recipe's own seed"):
        parse_recipe(raw, tmp_path / "tiny.yaml")


def test_what_models_have_in_common_is_in_their_intervals_but_not_in_that_of_their_difference(board: Scoreboard):
    tasks = board.groups["mean"]
    low, high = interval(board.resampled_means(("stage_1", 416), tasks))
    assert high - low > 0.01
    gain = board.difference(("stage_1", 416), ("stage_1", 32), tasks)
    assert gain.interval == pytest.approx((10, 10))


def test_an_interval_has_the_width_that_statistics_predict():
    values = np.random.default_rng(1).normal(0.5, 0.2, 400)
    points = {("a", 1): {"T": float(values.mean())}}
    low, high = interval(resample({"a": samples_of("a", 1, "T", values)}, points)["a", 1]["T"])
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)


def test_a_task_whose_samples_differ_between_models_adds_no_spread():
    points = {("a", 1): {"T": 0.5}, ("b", 1): {"T": 0.6}}
    samples = {name: samples_of(name, 1, "T", np.full(count, 0.5)) for name, count in (("a", 10), ("b", 9))}
    resampled = resample(samples, points)
    assert {model: set(tasks["T"]) for model, tasks in resampled.items()} == {("a", 1): {0.5}, ("b", 1): {0.6}}


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_that_of_scikit_learn(ties):
    random = np.random.default_rng(2)
    for _ in range(20):
        gold = random.integers(0, 2, 50)
        values = random.integers(0, 5, 50).astype(float) if ties else random.normal(size=50)
        assert average_precision(values, gold) == pytest.approx(average_precision_score(gold, values))


def test_public_models_are_compared_on_the_tasks_that_most_of_them_have():
    references = pl.DataFrame(
        [("x", "A", 0.5), ("x", "B", 0.7), ("y", "A", 0.6), ("y", "B", 0.8), ("z", "A", 0.9), ("x", "Rare", 0.1)],
        schema=["model", "task", "score"],
        orient="row",
    )
    types = {"A": "STS", "B": "Retrieval", "Mine": "STS"}
    found = compare(references, {"stage_1": {"A": 0.55, "B": 0.75, "Mine": 0.2}}, types)
    assert found is not None
    assert found.tasks == ("A", "B")
    assert [(m.name, m.own, m.mean) for m in found.models] == [
        ("y", False, 0.7),
        ("stage_1", True, 0.65),
        ("x", False, 0.6),
    ]
    assert compare(references, {}, {"Mine": "STS"}) is None


def test_the_figures_that_come_with_the_package_are_those_of_the_public_results():
    minilm = read_reference_scores(None).filter(model="sentence-transformers/all-MiniLM-L6-v2")
    scores = dict(minilm.select("task", "score").iter_rows())
    assert scores["STSBenchmark"] == pytest.approx(0.8203, abs=1e-4)
    assert len(scores) > 56


def test_a_file_of_reference_scores_is_checked(tmp_path):
    path = tmp_path / "scores.csv"
    for text, message in (
        ("model,score\nx,0.5", "has no column `task`"),
        ("model,task,score\nx,A,55", "Divide them by 100"),
    ):
        path.write_text(text)
        with pytest.raises(ReferenceScoresError, match=message):
            read_reference_scores(path)
    with pytest.raises(ReferenceScoresError, match="cannot be read"):
        read_reference_scores(tmp_path / "absent.csv")


def test_a_summary_is_read_as_it_was_written_without_speeds(board: Scoreboard):
    summary = summarise("tiny", 0, board, ORDER)
    assert Summary.from_json(summary.to_json()) == summary
    timed = summary.with_speeds(dict.fromkeys(ORDER, 12.5))
    assert timed.to_json() == summary.to_json()
    assert {model["texts_per_second"] for model in timed.model_dump()["models"]} == {12.5}


def test_parts_of_an_aggregate_have_equal_weight_however_many_subsets_each_has():
    parts = [("P", "one", 0.2), ("P", "two", 0.4), ("Q", "one", 0.9)]
    frames = [
        samples_of("a", 1, "T", np.full(5, value)).with_columns(part=pl.lit(part), subset=pl.lit(subset))
        for part, subset, value in parts
    ]
    found = resample({"a": pl.concat(frames)}, {("a", 1): {"T": 0.6}})["a", 1]["T"]
    assert set(np.round(found, 12)) == {0.6}  # the mean of 0.3 and 0.9, as mteb's score


def test_samples_that_give_no_number_are_no_samples_of_a_score():
    class Nothing(TaskKind):
        @classmethod
        def samples(cls, task: Any, evidence: Evidence) -> Samples:
            return Samples("mean", [sample("default", "test", 0, float("nan"))])

    class Result:
        def get_score(self) -> float:
            return 0.5

    assert collect(Nothing, None, Evidence(Result(), Path(), {})) == NO_SAMPLES


def test_retention_is_drawn_though_an_interval_does_not_hold_its_value():
    shares = {"STS": Figure(value=0.9, interval=(0.91, 0.95)), "mean": Figure(value=0.9, interval=(0.8, 0.89))}
    summary = Summary(
        recipe="tiny", seed=0, task_types={}, models=(), retention={"concatenation": shares},
        gain=Difference(value=0, interval=(0, 0)),
    )  # fmt: skip
    assert retention(summary).startswith(b"\x89PNG")


@pytest.mark.parametrize("row", ["x,A,", "x,A,many", ",A,0.5", "x,,0.5", "x,A,nan"])
def test_a_cell_of_reference_scores_that_is_empty_or_no_number_is_named(row: str, tmp_path: Path):
    path = tmp_path / "scores.csv"
    path.write_text(f"model,task,score\ny,A,0.5\n{row}\n")
    with pytest.raises(ReferenceScoresError, match=r"scores\.csv: row 2 has model"):
        read_reference_scores(path)
    path.write_text("model,task,score\ny,A, 0.5\n")
    assert read_reference_scores(path)["score"].to_list() == [0.5]
