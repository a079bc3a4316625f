"""Make a release again in another workspace, and compare each artefact with the one that it is made of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stella_assets.core.manifest import changed_values
from stella_assets.core.runner import Runner
from stella_assets.core.step import Artefact, Step
from stella_assets.core.trace import Node, Tracer
from stella_assets.lineage.match import match_steps
from stella_assets.recipe import Graph
from stella_assets.storage.workspace import Workspace
from stella_assets.training.stage import START
from stella_assets.training.start import Start, StartError, set_start

Verdict = Literal["identical", "within tolerance", "follows", "differs"]


@dataclass(frozen=True)
class Comparison:
    """An artefact that was made again.

    Attributes:
        asset: Its name.
        before: Its digest in the release's lineage; empty where it is not part of it.
        now: Its digest when it was made again.
        verdict: `identical` by bytes, `within tolerance`, or `differs`; `follows` where no tolerance is stated, and
            something that it was made of is not identical.
        measured: The largest deviation, in words.
    """

    asset: str
    before: str
    now: str
    verdict: Verdict
    measured: str = ""


class Reproduction:
    """A release that is made again in another workspace. Each artefact is compared as soon as it exists.

    Args:
        release: The release and everything that it depends on.
        graph: Of its recipe.
        workspace: Where the release is.
        runner: Makes it again, in another workspace. What an interrupted reproduction made there is reused, as in any
            run.
    """

    def __init__(self, release: Node, graph: Graph, workspace: Workspace, runner: Runner) -> None:
        self._graph = graph
        self._workspace = workspace
        self._runner = runner
        self._nodes = match_steps(graph.released(release.name), release)

    def run(self) -> Iterator[Comparison]:
        """Make and compare, inputs first.

        Yields:
            One comparison per step, as soon as its artefact exists.

        Raises:
            StartError: The weights that the release continued from are gone.
            UserError: A step refuses its inputs.
        """
        # Before the first stage is identified: its start is one of its inputs.
        self._begin_with_the_same_weights()
        identical: set[Step[Any]] = set()
        for step, node in self._nodes.items():
            now = self._runner.make(step)
            if node is None or node.folder is None or node.manifest is None:
                yield Comparison(step.name, "", now.digest, "differs", "not part of the release")
                continue
            before = Artefact(node.name, node.folder, node.manifest)
            # Files, not digests: a digest also covers the inputs, which may differ within their tolerance.
            if dict(before.manifest.outputs) == dict(now.manifest.outputs):
                identical.add(step)
                yield Comparison(step.name, before.digest, now.digest, "identical")
                continue
            # Other bytes from identical inputs differ by themselves; otherwise they may only follow from an earlier
            # step.
            same_inputs = all(each in identical for each in step.dependencies)
            verdict, measured = self._measure(step, before, now, same_inputs)
            yield Comparison(step.name, before.digest, now.digest, verdict, measured)

    def _measure(self, step: Step[Any], before: Artefact, now: Artefact, same_inputs: bool) -> tuple[Verdict, str]:
        """How far two artefacts of a step lie apart, where a tolerance is stated for their kind."""
        if step.compare is None:
            files = changed_values(dict(before.manifest.outputs), dict(now.manifest.outputs))
            return "differs" if same_inputs else "follows", f"other bytes: {', '.join(files)}"
        deviation = step.compare(before, self._workspace, now, self._runner.workspace)
        return "within tolerance" if deviation.tolerated else "differs", deviation.measured

    def _begin_with_the_same_weights(self) -> None:
        """Copy the weights that the release continued from: they are of another release, and not made again."""
        first = self._nodes[self._graph.stages[0]]
        digest = first.sources.get(START) if first else None
        if digest is None:
            return
        folder = Tracer(self._workspace).folder_of(digest)
        if folder is None:
            raise StartError(
                f"{self._graph.recipe.name}: the release continued from weights with the digest {digest[:12]}, and "
                "they are gone.",
                "Make a later release again; with a higher `redistil.keep` more of them stay.",
            )
        family = folder.parent.relative_to(self._workspace.artefacts).as_posix()
        fresh = self._runner.workspace
        copy = fresh.artefacts / family / folder.name
        # Through a draft and a rename: a killed copy must not be taken for whole weights. A later one completes the
        # draft.
        if not copy.exists():
            shutil.copytree(folder, copy.with_suffix(".draft"), dirs_exist_ok=True)
            copy.with_suffix(".draft").rename(copy)
        set_start(fresh, self._graph.recipe.name, Start(family, folder.name, digest))


def reproduction_folder(workspace: Workspace, release: Node) -> Path:
    """Where a release is made again: the same folder each time, so that a killed reproduction continues.

    Args:
        workspace: Where the release is.
        release: The release.
    """
    return workspace.reproductions / release.digest[:12]
