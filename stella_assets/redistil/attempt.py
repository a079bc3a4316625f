"""One pass over a recipe: what is new, whether it is worth training on, and whether the result is promoted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

import numpy as np

from stella_assets.core.runner import Runner
from stella_assets.core.step import Artefact, Step, upstream
from stella_assets.core.trace import Node, Tracer
from stella_assets.recipe import Graph, Redistil
from stella_assets.recipe.preflight import check_recipe
from stella_assets.redistil.ledger import Entry, Ledger, Verdict
from stella_assets.release.active import active_folder
from stella_assets.release.promotion import promote_release
from stella_assets.release.verdicts import failed_verdicts
from stella_assets.storage.canonical import digest
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.drift import snapshot_drift
from stella_assets.teachers.snapshot import Snapshot
from stella_assets.training.start import Start, set_start
from stella_assets.training.train import MODEL_FOLDER


class MakeAll(Protocol):
    """Makes steps."""

    def __call__(self, *wanted: Step[Any]) -> None:
        """Make steps and everything that they depend on, through the runner or one that shares its memory.

        Args:
            wanted: The steps. One whose checks fail is made all the same; what comes after it need not be.
        """


def make_in_process(runner: Runner) -> MakeAll:
    """Make steps one after another in this process, without Dagster.

    Args:
        runner: Makes the artefacts.

    Returns:
        A function for `redistil`.
    """

    def make_all(*wanted: Step[Any]) -> None:
        for step in upstream(*wanted):
            runner.make(step)

    return make_all


def inputs_of(graph: Graph, workspace: Workspace) -> dict[str, str]:
    """What a re-distillation depends on: digests of the recipe, the sources and the teachers, by name.

    Nothing is made, and no model is loaded.

    Args:
        graph: Of the recipe.
        workspace: Where state is kept.

    Returns:
        Digests by name: `recipe`, and `<step>: <source>` for each source and teacher.

    Raises:
        UserError: A source or a teacher does not exist, or cannot be read.
    """
    # Without what decides no artefact: a new schedule or owner must not start a training run.
    found = {"recipe": digest(graph.recipe.settings("redistil", "description", "owners"))}
    for step in (graph.cleaned, *graph.teachers.values()):
        versions = step.external_versions(workspace) if step.external_versions else {}
        found |= {f"{step.name}: {key}": value for key, value in versions.items()}
    return found


class Attempt:
    """One pass over a recipe; see `redistil`.

    Args:
        graph: Of the recipe.
        settings: The recipe's part on re-distillation.
        runner: Finds artefacts.
        make_all: Makes steps.
        ledger: The earlier passes.

    Raises:
        LedgerError: A line of the ledger was changed by hand.
    """

    def __init__(self, graph: Graph, settings: Redistil, runner: Runner, make_all: MakeAll, ledger: Ledger) -> None:
        self._graph = graph
        self._settings = settings
        self._runner = runner
        self._make_all = make_all
        # Read under the lock of `redistil`, so the entry of a process that was waited for counts.
        self._examined, self._trained = ledger.last_examined(), ledger.last_trained()
        self._entry = Entry(started_at="", recipe=graph.recipe.name, verdict="failed", why="", inputs={})

    def outcome(self, verdict: Verdict, why: str) -> Entry:
        """What is known so far, with a verdict."""
        return replace(self._entry, verdict=verdict, why=why)

    def run(self, at: datetime, force: bool) -> Entry:
        """Go as far as it is worth it.

        Args:
            at: When it begins; the date names the release.
            force: Train even if little or nothing is new.

        Returns:
            The entry of the ledger, without `started_at`, `release` and `seconds`.

        Raises:
            UserError: A source, a teacher or a step refuses its inputs. `outcome` then says how far it came.
        """
        graph, runner, workspace = self._graph, self._runner, self._runner.workspace
        inputs = inputs_of(graph, workspace)
        self._note(inputs=inputs)
        # First the question that needs no model: most scheduled runs end here.
        if not force and self._examined and self._examined.inputs == inputs:
            return self.outcome("nothing new", "sources, teachers and recipe have not changed")
        # Before anything is paid for: teachers may be APIs.
        check_recipe(graph.recipe, workspace)
        self._embed()
        folder = active_folder(graph.recipe.name, workspace)
        active = Tracer(workspace).of_folder(folder) if folder else None
        before, snapshot = self._learned_from(active), runner.read(graph.concatenation)
        # Keys are hashes of texts, so a text that moved between files is not new.
        new = len(snapshot) if before is None else len(np.setdiff1d(snapshot.keys, before.keys))
        self._note(new_texts=new)
        if not force and before and (little := self._too_little(before, snapshot, inputs)):
            return self.outcome("too little new", little)
        # Only now: the start is part of the identity of the first stage, and a run that trains nothing must not change
        # it.
        if active and self._settings.continue_from_release:
            self._continue_from(active)
        # Not the release: behind a closed gate it could not be made.
        self._make_all(graph.gate)
        # The same digest as the active release: equal inputs led to the same student, and nothing is to be judged.
        made = runner.find(graph.release)
        if made and active and made.digest == active.digest:
            return self.outcome("nothing new", "the result is the active release")
        return self._judge(at)

    def _note(self, **values: Any) -> None:
        self._entry = replace(self._entry, **values)

    def _embed(self) -> None:
        """Make the texts and all vectors, and count the vectors that were computed."""
        teachers = self._graph.teachers.values()
        # A teacher artefact that existed before states how many vectors were computed then, not now.
        known = {found.digest for step in teachers if (found := self._runner.find(step))}
        self._make_all(self._graph.concatenation)
        made = [self._runner.require(step) for step in teachers]
        embedded = sum(each.manifest.metrics["embedded_now"] for each in made if each.digest not in known)
        self._note(embedded=embedded)

    def _learned_from(self, active: Node | None) -> Snapshot | None:
        """The vectors that the active release learned from; None where there is no release or they are gone."""
        step = self._graph.concatenation
        node = active.all.get(step.stored_as) if active else None
        if node is None or node.folder is None or node.manifest is None:
            return None
        artefact = Artefact(node.name, node.folder, node.manifest)
        workspace = self._runner.workspace
        return step.read(artefact, workspace) if step.is_available(artefact, workspace) else None

    def _too_little(self, before: Snapshot, now: Snapshot, inputs: Mapping[str, str]) -> str | None:
        """Why it is not worth training: few texts are new and vectors have hardly changed; None where it is.

        Drift is measured on a sample, compared with what the release learned from, so small changes add up until they
        count.
        """
        if self._trained is None or self._changed_beyond_texts(self._trained.inputs, inputs):
            return None
        # Shares of the texts that the active release learned from; drift counts the worst teacher, not the mean.
        share = self._entry.new_texts / len(before)
        changes = [row["changed_neighbours"] or 0.0 for row in snapshot_drift(before, now)]
        change, settings = max(changes, default=0.0), self._settings
        if share >= settings.min_new_fraction or change >= settings.min_neighbor_change:
            return None
        return (
            f"{self._entry.new_texts:,} new texts, {100 * share:.2f}% of {len(before):,}, and {100 * change:.2f}% of "
            f"neighbours changed; training begins at {100 * settings.min_new_fraction:g}% or "
            f"{100 * settings.min_neighbor_change:g}%"
        )

    def _changed_beyond_texts(self, before: Mapping[str, str], now: Mapping[str, str]) -> bool:
        changed = {name for name in {*before, *now} if before.get(name) != now.get(name)}
        # Names are those of `inputs_of`: everything that is not a source of texts is the recipe or a teacher.
        return any(not name.startswith(f"{self._graph.cleaned.name}: ") for name in changed)

    def _continue_from(self, active: Node) -> None:
        """Begin training with the encoder of the active release; with the base model where its stages are gone."""
        stages = [node for node in active.inputs if node.folder and (node.folder / MODEL_FOLDER).is_dir()]
        if not stages:
            return
        last = max(stages, key=lambda node: len(node.all))  # it depends on all others
        assert last.folder is not None
        start = Start(last.name, last.folder.name, last.digest)
        set_start(self._runner.workspace, self._graph.recipe.name, start)

    def _judge(self, at: datetime) -> Entry:
        """Compare the new student with the gate and the active release, and promote it if it passes."""
        graph, runner, new = self._graph, self._runner, f"{self._entry.new_texts:,} new texts"
        student = 100 * runner.read(graph.report).summary.student.mean
        self._note(score=round(student, 2))
        if failed := failed_verdicts(runner.read(graph.gate)):
            return self.outcome("rejected", f"{new}; the gate is closed: {'; '.join(failed)}")
        before, min_gain = self._active_mean(), self._settings.min_gain
        if before is not None and student - before < min_gain:
            asked = f"a gain of {min_gain:+g} is asked" if min_gain else "less than the active release"
            return self.outcome("rejected", f"{new}; mean {before:.2f} -> {student:.2f}, {asked}")
        self._make_all(graph.release)
        artefact = runner.require(graph.release)
        name = f"{at:%Y-%m-%d}-{artefact.folder.name[:8]}"
        promote_release(artefact, graph.recipe.name, runner.workspace, name)
        grown = f"mean {student:.2f}, the first release" if before is None else f"mean {before:.2f} -> {student:.2f}"
        return self.outcome("promoted", f"{new}; {grown}")

    def _active_mean(self) -> float | None:
        """Mean score of the active release on the tasks of now, times 100."""
        scored = self._runner.find(self._graph.active_scores)
        scores = [row["score"] for row in scored.manifest.metrics["scores"]] if scored else []
        return 100 * sum(scores) / len(scores) if scores else None
