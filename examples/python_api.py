"""The Python API: a recipe becomes a graph, a runner makes its steps, and their artefacts are read. No Dagster.

Run it with `python examples/python_api.py`; run it again, and everything is found instead of made.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from stella_assets.core.runner import Runner
from stella_assets.core.step import upstream
from stella_assets.pipelines.environment import prepare_libraries
from stella_assets.recipe import Graph, read_recipe
from stella_assets.storage.workspace import Workspace

HERE = Path(__file__).parent


def main(folder: Path) -> None:
    """Make the last stage and everything that it depends on, and look at the results."""
    prepare_libraries()  # threads, and silence of libraries
    graph = Graph(read_recipe(HERE / "small.yaml"))
    runner = Runner(Workspace(folder), logging.getLogger("example"))

    for step in upstream(graph.stages[-1], graph.vector_stats):
        artefact = runner.make(step)
        print("reused" if artefact.reused else "made", step.name, artefact.digest[:12])

    # `read` opens an artefact as its step says: a corpus, teacher vectors, a snapshot, a student.
    corpus = runner.read(graph.corpus)
    print("texts:", len(corpus))
    snapshot = runner.read(graph.concatenation)
    print("snapshot:", snapshot.layout.teachers, snapshot.layout.dims)

    # A manifest says what an artefact was made of; a finished step is found by it, whatever else has changed.
    manifest = runner.require(graph.stages[-1]).manifest
    print("inputs of stage 1:", sorted(manifest.identity.inputs))

    student = runner.read(graph.stages[-1]).load(runner.compute)
    vectors = student.encode(["Return the shortest path.", "The cheapest route.", "Colour of a node."])
    print("cosines:", *(vectors @ vectors.T).round(2), sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("var/examples"))
