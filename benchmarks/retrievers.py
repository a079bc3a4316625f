"""Whether late interaction and a reranker beat the dense student that they begin with, given enough pairs.

python -m benchmarks.retrievers --data FOLDER   the contrastive student, then both retrievers; one seed

Data, teacher, student and tasks are those of `benchmarks.contrastive`, as are its scales and its workspace. Late
interaction learns from each pair with one mined negative, the reranker with two mined and two random ones, both from
what is known to answer a query and from the teacher's stored cosines.
"""

from __future__ import annotations

import logging
from typing import Any

import typer

from benchmarks import Data, write_row
from benchmarks.contrastive import ANCHOR_TEXTS, TOKENS, WORKSPACE, Comparison, ScaleName, WorkspaceFolder
from stella_assets.evaluation.ranking.comparison import compare_rankers

app = typer.Typer(add_completion=False)
LATE_INTERACTION = {
    "name": "late_interaction", "kind": "multi_vector", "token_dim": 128, "query_length": 32,
    "document_length": TOKENS, "scores": "store", "losses": {"kl": 1, "contrastive": 1}, "candidates": 2,
    "batch_size": 64, "epochs": 1, "learning_rate": 2e-4,
}  # fmt: skip
RERANKER = {
    "name": "reranker", "kind": "reranker", "max_length": TOKENS, "scores": "store",
    "losses": {"listnet": {"weight": 1, "target": "labels"}, "kl": 1}, "candidates": 5, "batch_size": 16, "epochs": 1,
    "learning_rate": 2e-4, "head_learning_rate": 1e-3,
}  # fmt: skip


@app.command()
def main(
    data: Data,
    workspace: WorkspaceFolder = WORKSPACE,
    seed: int = 0,
    scale: ScaleName = "part",
) -> None:
    """nDCG@10 of the stages and of both retrievers, and their difference to the last stage."""
    run = Comparison(data, workspace, scale)
    retrievers = [LATE_INTERACTION, RERANKER]
    graph = run.graph(
        seed,
        run.scale.finish(others=ANCHOR_TEXTS),
        pair_scores=[{"name": "store", "kind": "stored", "teacher": "minilm"}],
        retrievers=retrievers,
    )
    scored: list[Any] = []
    for step in graph.rankings:
        run.make(step)
        scored.append(run.runner.read(step))
        types = {task.name: task.type for task in run.runner.read(graph.tasks).open()}
        found = compare_rankers(scored[0], scored[1:], types)
        assert found is not None
        # After each model: a benchmark that is stopped has said what it knows.
        write_row("retrievers", {"scale": scale, "seed": seed, "found": found.model_dump(mode="json")})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    app()
