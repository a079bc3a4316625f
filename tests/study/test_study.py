"""A study: runs as partitions, what they share made once, and a table with the spread over seeds."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from stella_assets.study.compare import compare
from tests.conftest import write_recipe

STELLA = str(Path(sys.executable).with_name("stella"))


def row(variant: str, seed: int, task: str, score: float, dimension: int = 8) -> dict:
    return {
        "variant": variant, "seed": seed, "dimension": dimension, "task": task, "score": score, "dev_neighbours": 0.5
    }  # fmt: skip


def test_the_best_variant_comes_first_with_its_spread_over_seeds():
    rows = [row("a", seed, task, 0.5 + 0.01 * seed) for seed in range(3) for task in ("x", "y")]
    rows += [row("b", seed, task, 0.9) for seed in range(2) for task in ("x", "y")] + [row("b", 0, "x", 0.95, 4)]
    compared = compare(rows)
    assert [(r["variant"], r["dimension"], r["seeds"]) for r in compared] == [("b", 8, 2), ("b", 4, 1), ("a", 8, 3)]
    assert compared[0]["spread"] == pytest.approx(0)
    assert compared[1]["spread"] is None
    assert compared[2]["mean"] == pytest.approx(51)
    assert compared[2]["spread"] == pytest.approx(1)
    assert (compared[2]["lowest"], compared[2]["highest"]) == pytest.approx((50, 52))


@pytest.mark.slow
def test_a_study_runs_its_variants_as_partitions_and_compares_them(raw: dict, tmp_path: Path):
    raw["corpus"]["sources"][0] |= {"packages": ["networkx"], "limit": 400}
    raw["teachers"] = raw["teachers"][1:]
    raw["stages"] = [
        {"method": "closed_form", "train_layers": 0, "full_head": {"cosine": 1}},
        {"train_layers": 1, "full_head": {"cosine": 1}, "steps": 3, "batch_size": 16, "learning_rate": 1e-4},
    ]
    raw["student"]["matryoshka_dims"] = []
    raw["release"]["dimension"] = 32
    raw["evaluation"]["held_out"] = {"kinds": ["retrieval"]}
    recipe, workspace = write_recipe(tmp_path, raw), tmp_path / "workspace"
    environment = {**os.environ, "STELLA_HOME": str(workspace), "COLUMNS": "250"}

    def study(*values: str) -> subprocess.CompletedProcess[str]:
        grid = f"stages.*.learning_rate={','.join(values)}"
        command = [STELLA, "study", str(recipe), "--grid", grid, "--seeds", "2"]
        return subprocess.run(command, check=False, env=environment, capture_output=True, text=True)

    done = study("x1", "x10")
    assert done.returncode == 0, done.stderr
    assert re.search(r"│ stages\.\*\.learning_rate=x10 │ +32 │ +2 │", done.stdout)
    with duckdb.connect(str(workspace / "statistics.duckdb"), read_only=True) as connection:
        found = connection.execute(
            "SELECT variant, count(DISTINCT seed) FROM study GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    assert found == [("stages.*.learning_rate=x1", 2), ("stages.*.learning_rate=x10", 2)]
    for name in ("study.html", "study_mean.png", "study_tasks.png"):
        assert (workspace / "tiny" / "study" / name).stat().st_size > 500
    assert len(list((workspace / "artefacts" / "corpus").glob("*/manifest.json"))) == 1
    assert len(list((workspace / "artefacts" / "stage_1").glob("*/manifest.json"))) == 2  # one per seed
    assert not (workspace / "tiny" / "stage_2").exists()  # a study does not change what the recipe has

    more = study("x10", "x3")
    assert more.returncode == 0, more.stderr
    assert re.search(r"│ stages\.\*\.learning_rate=x1 +│ +32 │ +2 │", more.stdout)  # from the study before
    assert more.stderr.count("stage_2: step 3 of 3") == 2
    metrics = json.loads((workspace / "tiny" / "study" / "manifest.json").read_text())["metrics"]
    assert metrics["variants"] == 3

    compared = json.loads((workspace / "tiny" / "study" / "study.json").read_text())
    as_it_is = next(row for row in compared if row["variant"] == "stages.*.learning_rate=x1")
    raw["evaluation"]["seeds"] = [1]
    write_recipe(tmp_path, raw)
    run = [STELLA, "run", str(recipe), "--select", "evaluation_report"]
    reported = subprocess.run(run, check=False, env=environment, capture_output=True, text=True)
    assert reported.returncode == 0, reported.stderr
    assert "step 3 of 3" not in reported.stderr  # the study has trained both seeds
    (row,) = json.loads((workspace / "tiny" / "evaluation_report" / "report.json").read_text())["seeds"]
    for figure in ("mean", "spread", "lowest", "highest"):
        assert 100 * row[figure] == pytest.approx(as_it_is[figure])


def test_a_mistake_in_a_grid_is_reported_before_anything_runs(raw: dict, tmp_path: Path):
    recipe, workspace = write_recipe(tmp_path, raw), tmp_path / "workspace"
    done = subprocess.run(
        [STELLA, "study", str(recipe), "--grid", "stages.*.learning_rate=x1,x90000"],
        check=False, env={**os.environ, "STELLA_HOME": str(workspace)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Input should be less than or equal to 1" in done.stderr
    assert not (workspace / "artefacts").exists()
