"""The gate opens and closes on evidence, not on noise."""

from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest

from stella_assets.evaluation.scoreboard import Scoreboard, summarise
from stella_assets.evaluation.summary import ContaminationSummary, Summary
from stella_assets.recipe import Graph, parse_recipe
from stella_assets.recipe.preflight import check_recipe
from stella_assets.release.causes import explain_loss
from stella_assets.release.gate import GateError
from stella_assets.release.settings import Gate
from stella_assets.release.verdicts import Verdict, judge, judge_contamination, judge_terms
from stella_assets.teachers.terms import Terms

ORDER = ["teacher/minilm", "concatenation", "base_model", "stage_1", "active_release"]
MEANS = {
    ("teacher/minilm", 384): 0.8,
    ("concatenation", 416): 0.8,
    ("base_model", 384): 0.5,
    ("stage_1", 416): 0.7,
    ("stage_1", 32): 0.65,
    ("active_release", 416): 0.7,
}


def board(samples: int, noise: float = 0.2, **shift: float) -> Scoreboard:
    """Two tasks; samples of models have independent noise. `shift` moves the active release's score, by task."""
    random = np.random.default_rng(0)
    rows, frames = [], []
    for task, kind in (("A", "Retrieval"), ("B", "STS")):
        for (model, dimension), mean in MEANS.items():
            moved = mean + (shift.get(task, 0.0) if model == "active_release" else 0.0)
            drawn = random.normal(0, noise, samples)
            values = moved + drawn - drawn.mean()
            about: dict[str, Any] = {"model": model, "dimension": dimension, "task": task, "part": task}
            about |= {"statistic": "mean", "subset": "default", "split": "test", "gold": 0.0}
            frames.append(pl.DataFrame(about | {"sample": [str(i) for i in range(samples)], "value": values}))
            rows.append({"model": model, "dimension": dimension, "task": task, "type": kind, "score": values.mean()})
    joined = pl.concat(frames)
    return Scoreboard(rows, {name: joined.filter(pl.col("model") == name) for name in ORDER}, ORDER)


def verdicts(gate: dict[str, Any], of: Scoreboard) -> dict[tuple[str, str], Verdict]:
    found = judge(
        Gate.model_validate({"max_task_regression": None, "max_base_regression": None, **gate}), of, "stage_1"
    )
    return {(verdict.requirement, verdict.subject): verdict for verdict in found}


def test_retention_below_the_limit_closes_the_gate_and_says_by_how_much():
    found = verdicts({"retention": {"Retrieval": 0.95, "mean": 0.8}}, board(2000))
    assert not found["retention", "Retrieval"].passed
    assert "retention, Retrieval: 0.875 (95%:" in str(found["retention", "Retrieval"])
    assert "limit 0.95, short by 0.075" in str(found["retention", "Retrieval"])
    assert found["retention", "mean"].passed
    assert found["retention", "mean"].sure


def test_a_reference_whose_interval_reaches_0_is_not_a_limit(monkeypatch):
    """A share of a score whose resamples reach 0 means nothing."""
    monkeypatch.setitem(MEANS, ("concatenation", 416), 0.001)
    assert verdicts({"retention": {"mean": 0.95}}, board(20)) == {}


def test_noise_does_not_close_the_gate():
    """0.875 is below 0.9, but on twenty samples that proves nothing."""
    few = verdicts({"retention": {"mean": 0.9}}, board(20))["retention", "mean"]
    assert few.found < few.limit < few.high
    assert (few.passed, few.sure) == (True, False)
    assert "within the noise" in str(few)


def test_noise_does_not_open_the_gate():
    """A point more than the release is not a gain yet on twenty samples; on many it is."""
    gate = {"gain_over_release": 0.5}
    assert not verdicts(gate, board(20, A=-0.02, B=-0.02))["gain_over_release", "mean"].passed
    assert verdicts(gate, board(20_000, A=-0.02, B=-0.02))["gain_over_release", "mean"].passed


def test_one_task_that_falls_closes_the_gate_though_the_mean_rises():
    found = verdicts({"max_task_regression": 2.0}, board(5000, A=0.05, B=-0.2))
    assert not found["max_task_regression", "A"].passed
    assert found["max_task_regression", "B"].passed


def test_matryoshka_dimensions_and_gain_are_compared_with_their_limits():
    found = verdicts({"dimensions": {32: 0.95}, "gain": 10}, board(5000))
    assert not found["dimensions", "32"].passed
    assert found["gain", "mean"].passed
    assert found["gain", "mean"].found == pytest.approx(20)


def test_without_a_release_nothing_is_compared_with_it():
    whole = board(100)
    for model in [model for model in whole.points if model[0] == "active_release"]:
        del whole.points[model]
    assert verdicts({"max_task_regression": 0.0, "gain_over_release": 0.0}, whole) == {}


def test_the_release_itself_passes_when_it_is_run_again():
    same = board(100, noise=0.0)
    assert verdicts({"max_task_regression": 0.0, "gain_over_release": 1.0}, same) == {}


def test_texts_left_in_the_corpus_close_the_gate():
    left = {"A": 3, "B": 0}
    rows = [ContaminationSummary(task=task, texts=9, dropped=0, reported=count) for task, count in left.items()]
    found = list(judge_contamination(1, rows))
    assert [(verdict.subject, verdict.passed) for verdict in found] == [("A", False), ("B", True)]


ALLOWED, INTERNAL = (
    Terms(distribution=word, url="https://example.com/terms", read_on=date(2026, 11, 27))
    for word in ("allowed", "internal")
)


@pytest.mark.parametrize(
    ("distribution", "stated", "passed"),
    [("public", ALLOWED, True), ("public", INTERNAL, False), ("internal", INTERNAL, True), ("internal", ALLOWED, True)],
)
def test_terms_close_the_gate_of_a_public_release(distribution: str, stated: Terms, passed: bool):
    [verdict] = judge_terms(distribution, {"paid": stated})
    assert (verdict.requirement, verdict.subject, verdict.passed) == ("terms", "paid", passed)
    assert "https://example.com/terms, read on 2026-11-27" in verdict.note


def test_a_public_release_of_an_internal_teacher_is_refused_before_anything_is_paid(
    raw: dict[str, Any], tmp_path, workspace
):
    terms = INTERNAL.settings()
    service = {"dialect": "openai", "model": "text-embedding-3-small", "dimensions": 8}
    paid = {"kind": "api", "name": "paid", "licence": "proprietary", "key": "A_KEY", "service": service, "terms": terms}
    raw["teachers"].append(paid)
    for stages, refused in ((None, True), (["minilm"], False)):
        for stage in raw["stages"]:
            stage["teachers"] = stages
        recipe = parse_recipe(raw, tmp_path / "tiny.yaml")
        found = Graph(recipe).gate.settings
        if refused:
            assert (found["distribution"], found["terms"]) == ("public", {"paid": terms})
            with pytest.raises(GateError, match=r"teacher 'paid': .* may not be published.*internal \(https://exam"):
                check_recipe(recipe, workspace)
        else:  # nothing of it is in the student
            assert "terms" not in found
            check_recipe(recipe, workspace)


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        (
            {"retention": {"Clustering": 0.9}},
            "retention 'Clustering': no task is of this type. There are Classification",
        ),
        (
            {"retention_of": "minilmm"},
            "retention_of 'minilmm': no teacher has this name. There is concatenation, minilm, lsa",
        ),
        ({"dimensions": {48: 0.9}}, "dimensions 48: student.matryoshka_dims has no such dimension"),
        ({"contamination": 0}, "contamination: the corpus is not compared with any texts"),
    ],
)
def test_a_gate_on_what_the_recipe_does_not_have_is_refused(gate, message, raw, workspace, tmp_path):
    raw["release"]["gate"] = gate
    with pytest.raises(GateError, match=message):
        check_recipe(parse_recipe(raw, tmp_path / "tiny.yaml"), workspace)


def test_a_type_that_the_wanted_held_out_tasks_do_not_have_is_refused(raw, workspace, tmp_path):
    raw["evaluation"]["held_out"] = {"kinds": ["retrieval"]}
    raw["release"]["gate"] = {"retention": {"Classification": 0.9}}
    with pytest.raises(GateError, match=r"'Classification': no task is of this type. There are Retrieval, and `mean`"):
        check_recipe(parse_recipe(raw, tmp_path / "tiny.yaml"), workspace)


def test_by_default_a_student_below_its_base_model_is_not_released(monkeypatch):
    monkeypatch.setitem(MEANS, ("stage_1", 416), 0.42)
    found = {verdict.requirement: verdict for verdict in judge(Gate(), board(2000), "stage_1")}
    verdict = found["max_base_regression"]
    assert (verdict.passed, verdict.limit) == (False, 0)
    assert verdict.found == pytest.approx(-8)
    assert verdicts({"max_base_regression": 9}, board(2000))["max_base_regression", "mean"].passed
    assert Gate().settings() == Gate(max_base_regression=0).settings()


def test_noise_does_not_tell_a_student_from_its_base_model(monkeypatch):
    monkeypatch.setitem(MEANS, ("stage_1", 416), 0.49)
    verdict = verdicts({"max_base_regression": 0}, board(20))["max_base_regression", "mean"]
    assert (verdict.passed, verdict.sure) == (True, False)


def summary_of(board: Scoreboard, **parameters: int) -> Summary:
    found = summarise("tiny", 0, board, ORDER)
    models = [model.model_copy(update={"parameters": parameters.get(model.name)}) for model in found.models]
    return found.model_copy(update={"models": tuple(models)})


def test_a_loss_is_explained_by_what_cost_most(monkeypatch):
    """The types that fell, and the causes in the order of the points that each cost."""
    for model, mean in ((("concatenation", 416), 0.48), (("stage_1", 416), 0.42), (("stage_1", 32), 0.42)):
        monkeypatch.setitem(MEANS, model, mean)
    scores = board(2000, noise=0.0)
    for task, moved in (("A", -0.02), ("B", 0.0)):
        scores.points["stage_1", 416][task] += moved
    said = explain_loss(scores, summary_of(scores, stage_1=10_000_000, base_model=22_700_000), "stage_1")
    assert said == (
        "Compared with the base model as its authors ship it, Retrieval by 10.00 points, STS by 8.00 points fell. Most "
        "likely causes: (1) the student learnt too little of its teachers: they score 48.00, it scores 41.00 at best: "
        "train longer, on more texts or on texts nearer to the tasks; (2) the teachers themselves score 48.00, 2.00 "
        "below the base model: take better ones; (3) the student has 10.0 of the base model's 22.7 million parameters: "
        "keep more layers. To release it nevertheless, set release.gate.max_base_regression"
    )


def test_a_last_stage_that_lost_is_a_cause(monkeypatch):
    monkeypatch.setitem(MEANS, ("stage_2", 416), 0.45)
    monkeypatch.setattr(f"{__name__}.ORDER", [*ORDER, "stage_2"])
    scores = board(50, noise=0.0)
    said = explain_loss(scores, summary_of(scores), "stage_2")
    assert "(1) the last stage lost 25.00 points that stage_1 had: lower its learning rate; (2) the student" in said
