"""Quality at equal compute on six public tasks: the presets, and sentence-transformers for comparison.

python -m benchmarks.quality compare --data FOLDER       presets and EmbedDistillLoss, 50,000 texts, three seeds
python -m benchmarks.quality curve --data FOLDER         retention for 12,500 to 200,000 texts
python -m benchmarks.quality sensitivity --data FOLDER   learning rate, batch size and weights of `robust` and `paper`

FOLDER holds `corpus/` and `eval/`. The student is three of six layers of all-MiniLM-L6-v2, the teacher the whole model.
Every run's scores are kept in the workspace, named by a digest of its settings, so a benchmark that was stopped
continues where it was.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import RESULTS, Data, write_row
from benchmarks.public_tasks import evaluate
from benchmarks.training import embed_distill
from benchmarks.training_set import LOG, prepare
from stella_assets.core.figures import figure
from stella_assets.core.runner import Runner
from stella_assets.core.step import upstream
from stella_assets.evaluation.encoders import PooledStates, StudentEmbedder
from stella_assets.recipe import Graph, parse_recipe
from stella_assets.recipe.presets import expand_preset
from stella_assets.storage.canonical import digest
from stella_assets.storage.files import write_atomically
from stella_assets.storage.workspace import Workspace
from stella_assets.students.dense.model import DenseStudent

app = typer.Typer(add_completion=False)
WorkspaceFolder = Annotated[Path, typer.Option(help="Where vectors and scores are kept between runs.")]
WORKSPACE = Path("var/benchmarks")
FULL, QUARTER = 384, 96
TARGETS = {FULL: 97, QUARTER: 96}
"""Percent of the teacher's mean score that each dimension should reach."""
EMBED_DISTILL_RATES = (1e-4, 3e-4, 1e-3)

Embedders = dict[int, StudentEmbedder]
Scores = dict[str, dict[str, float]]
Stages = list[dict[str, Any]]


class Quality:
    """Runs and their scores.

    Args:
        data: Folder with corpus/ and eval/.
        texts: Training texts.
        workspace: Where vectors and scores are kept.
    """

    def __init__(self, data: Path, texts: int, workspace: Path) -> None:
        self._folder, self._eval = workspace / "quality", data / "eval"
        self._workspace, self._texts = Workspace(workspace.absolute()), texts
        self._training_set = prepare(data / "corpus", texts, self._workspace)

    def of_stages(self, stages: Stages, seed: int) -> Scores:
        """Scores of a student after these stages, by dimension."""
        return self._scored({"stages": stages, "seed": seed}, lambda: self._train(stages, seed))

    def of_embed_distill(self, rate: float, seed: int) -> Scores:
        """Scores after one epoch with SentenceTransformerTrainer and EmbedDistillLoss."""
        return self._scored({"peer": "EmbedDistillLoss", "rate": rate, "seed": seed}, lambda: self._peer(rate, seed))

    def of_models(self) -> dict[str, Scores]:
        """Scores of the teacher and of the student before training."""
        student, compute = self._training_set.recipe.student, self._training_set.compute

        def pooled(layers: Any) -> Callable[[], Embedders]:
            config = student.model_copy(update={"keep_layers": layers})
            return lambda: self._embedders(config.initialise(None, 0, compute), {FULL: None})

        return {
            name: self._scored({"model": name}, pooled(layers), texts=0)
            for name, layers in (("teacher", None), ("base_model", student.keep_layers))
        }

    def _scored(
        self,
        what: dict[str, Any],
        make: Callable[[], Embedders],
        texts: int | None = None,
    ) -> Scores:
        key = {**what, "texts": self._texts if texts is None else texts}
        path = self._folder / f"{digest(key)}.json"
        if not path.exists():
            started = time.monotonic()
            embedders = make()
            trained = time.monotonic() - started
            scores = {str(dim): evaluate(e, self._eval, self._workspace) for dim, e in embedders.items()}
            write_atomically(path, json.dumps({"of": key, "scores": scores, "training_seconds": trained}, indent=1))
            print(json.dumps(key)[:200], {dim: round(s["mean"], 2) for dim, s in scores.items()}, flush=True)
        return json.loads(path.read_text())["scores"]

    def _train(self, stages: Stages, seed: int) -> Embedders:
        raw = self._training_set.recipe.model_dump(mode="json") | {"stages": stages, "seed": seed}
        recipe = parse_recipe(raw, self._workspace.root / "benchmark.yaml")
        runner, last = Runner(self._workspace, LOG), Graph(recipe).stages[-1]
        for step in upstream(last):
            runner.make(step, link=False)
        student = runner.read(last).load(runner.compute)
        dims = [FULL, QUARTER] if recipe.trains_matryoshka_heads(len(recipe.stages)) else [FULL]
        return self._embedders(student, {dim: student.head_of(dim) for dim in dims})

    def _peer(self, rate: float, seed: int) -> Embedders:
        with tempfile.TemporaryDirectory() as folder:
            texts = len(self._training_set.data["train"])
            student, _ = embed_distill(self._training_set, texts, rate, seed, Path(folder))
        return self._embedders(student, {FULL: student.head_of(FULL)})

    def _embedders(self, student: DenseStudent, heads: Mapping[int, str | None]) -> Embedders:
        """Heads by dimension; they share the pooled states of the encoder."""
        states = PooledStates(student, self._workspace)
        return {dim: StudentEmbedder(states, head, {}) for dim, head in heads.items()}


def _summary(runs: list[Scores], dim: int = FULL) -> dict[str, Any]:
    means = [scores[str(dim)]["mean"] for scores in runs]
    tasks = {task: statistics.mean(s[str(dim)][task] for s in runs) for task in runs[0][str(dim)]}
    return {
        "mean": round(statistics.mean(means), 2),
        "spread": round(statistics.stdev(means), 2) if len(means) > 1 else None,
        "tasks": {task: round(score, 2) for task, score in tasks.items() if task != "mean"},
    }


@app.command()
def compare(data: Data, workspace: WorkspaceFolder = WORKSPACE, texts: int = 50_000, seeds: int = 3) -> None:
    """The presets and EmbedDistillLoss (at its best learning rate) on the same texts."""
    quality = Quality(data, texts, workspace)
    rows = {name: _summary([scores]) for name, scores in quality.of_models().items()}
    for preset in ("robust", "leaf", "paper"):
        stages = expand_preset({"preset": preset, "texts": texts})
        runs = [quality.of_stages(stages, seed) for seed in range(seeds)]
        rows[preset] = _summary(runs)
        if all(str(QUARTER) in run for run in runs):
            rows[f"{preset}, a quarter of the dimensions"] = _summary(runs, QUARTER)
    rate = max(EMBED_DISTILL_RATES, key=lambda rate: quality.of_embed_distill(rate, 0)[str(FULL)]["mean"])
    rows["EmbedDistillLoss"] = _summary([quality.of_embed_distill(rate, seed) for seed in range(seeds)])
    write_row("quality", {"texts": texts, "seeds": seeds, "embed_distill_learning_rate": rate, "scores": rows})
    best = rows["robust"]
    assert best["mean"] >= max(rows[name]["mean"] for name in ("leaf", "paper", "EmbedDistillLoss"))
    assert all(best["tasks"][task] > score for task, score in rows["base_model"]["tasks"].items())


@app.command()
def curve(data: Data, workspace: WorkspaceFolder = WORKSPACE, seed: int = 0) -> None:
    """Retention of `robust` by number of texts."""
    points = {}
    for texts in (12_500, 25_000, 50_000, 100_000, 200_000):
        quality = Quality(data, texts, workspace)
        teacher = quality.of_models()["teacher"][str(FULL)]["mean"]
        scores = quality.of_stages(expand_preset({"preset": "robust", "texts": texts}), seed)
        points[texts] = {dim: round(100 * score["mean"] / teacher, 2) for dim, score in scores.items()}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "quality_curve.png").write_bytes(_plot(points))
    write_row("quality_curve", {"retention_percent": points})


def _plot(points: dict[int, dict[str, float]]) -> bytes:
    """Retention by number of texts, one line per dimension."""

    def draw(axes: Any) -> None:
        for (dim, target), colour in zip(TARGETS.items(), ("#4053d3", "#b51d14"), strict=True):
            values = [scores[str(dim)] for scores in points.values()]
            axes.plot(list(points), values, "o-", color=colour, label=f"{dim} dimensions")
            for texts, value in zip(points, values, strict=True):
                axes.annotate(
                    f"{value:.1f}", (texts, value), (0, 6), textcoords="offset points", ha="center", fontsize=8
                )
            axes.axhline(target, color=colour, linestyle="--", linewidth=0.8, label=f"target for {dim}: {target}%")
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(points), [f"{texts:,}" for texts in points])
        axes.set_xlabel("texts, each seen once")
        axes.set_ylabel("share of the teacher's mean score, %")
        axes.legend(fontsize=8, frameon=False)

    return figure(6.5, 3.6, draw)


@app.command()
def sensitivity(data: Data, workspace: WorkspaceFolder = WORKSPACE, texts: int = 20_000, seed: int = 0) -> None:
    """The cost of a wrong learning rate, batch size or weight, one at a time."""
    quality = Quality(data, texts, workspace)
    table: dict[str, dict[str, float]] = {}
    for preset in ("robust", "paper"):
        stages = expand_preset({"preset": preset, "texts": texts})
        table[preset] = {
            name: round(quality.of_stages(changed, seed)[str(FULL)]["mean"], 2)
            for name, changed in _changes(stages).items()
        }
    losses = {preset: round(rows["unchanged"] - min(rows.values()), 2) for preset, rows in table.items()}
    write_row("quality_sensitivity", {"texts": texts, "mean_scores": table, "lost_at_worst": losses})
    assert losses["robust"] <= 1, "robust loses more than a point"


def _changes(stages: Stages) -> dict[str, Stages]:
    """The stages as they are, and with one setting changed in every stage that has it."""
    changed = {"unchanged": stages}
    for factor in (1 / 3, 3):
        changed[f"learning rate x {factor:.2g}"] = [
            stage | ({"learning_rate": stage["learning_rate"] * factor} if "learning_rate" in stage else {})
            for stage in stages
        ]
    for batch in (32, 128, 512):
        changed[f"batch {batch}"] = [
            stage | ({"batch_size": batch} if "batch_size" in stage else {}) for stage in stages
        ]
    for loss in ("similarity", "relative_similarity"):
        for factor in (1 / 4, 4):
            scaled = [_scaled(stage, loss, factor) for stage in stages]
            if scaled != stages:
                changed[f"{loss} x {factor:g}"] = scaled
    return changed


def _scaled(stage: dict[str, Any], loss: str, factor: float) -> dict[str, Any]:
    heads = {head: stage[head] for head in ("full_head", "matryoshka_heads") if loss in stage.get(head, {})}
    return stage | {head: weights | {loss: weights[loss] * factor} for head, weights in heads.items()}


if __name__ == "__main__":
    app()
