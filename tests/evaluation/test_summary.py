"""What the scores say."""

from stella_assets.evaluation.summary import summarise
from stella_assets.recipe import Recipe


def test_retention_and_gain_compare_full_dimensions_by_task_type(tiny: Recipe):
    means = {("teacher/minilm", 384): 0.8, ("concatenation", 416): 0.9, ("untouched_student", 384): 0.5}
    means |= {("stage_1", 416): 0.7, ("stage_1", 32): 0.6}
    rows = [
        {"model": model, "dimension": dim, "task": task, "type": kind, "score": mean + shift}
        for (model, dim), mean in means.items()
        for task, kind, shift in (("A", "Retrieval", -0.1), ("B", "Classification", 0.1))
    ]
    order = ["teacher/minilm", "concatenation", "untouched_student", "stage_1"]
    summary = summarise(tiny, rows, order)
    assert [(m["name"], m["dimension"], m["mean"]) for m in summary["models"]] == [
        ("teacher/minilm", 384, 0.8),
        ("concatenation", 416, 0.9),
        ("untouched_student", 384, 0.5),
        ("stage_1", 416, 0.7),
        ("stage_1", 32, 0.6),
    ]
    assert summary["gain"] == 20.0
    assert summary["retention"]["teacher/minilm"] == {"Retrieval": 0.8571, "Classification": 0.8889, "mean": 0.875}
    assert set(summary["retention"]) == {"teacher/minilm", "concatenation"}
