"""One re-distillation: what is new, whether it is worth training on, and whether what comes of it is served."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from storage.workspace import Workspace

from stella_assets.core.manifest import digest
from stella_assets.core.step import Artefact, Runner, Step, all_steps
from stella_assets.core.trace import Node, Tracer
from stella_assets.evaluation.report import read_summary, report_step
from stella_assets.evaluation.summary import at_full_dimension
from stella_assets.recipe import Recipe, RecipeError, Redistil
from stella_assets.recipe.preflight import check_recipe
from stella_assets.redistil.ledger import TRAINED, Entry, Ledger
from stella_assets.redistil.retention import collect_garbage
from stella_assets.release.gate import failed_verdicts, gate_step
from stella_assets.release.promote import promote_release
from stella_assets.release.publish import release_step
from stella_assets.release.released import released_folder
from stella_assets.teachers.concatenate import concatenation_step
from stella_assets.teachers.drift import snapshot_drift
from stella_assets.teachers.encode import teacher_step
from stella_assets.training.start import Start, set_start
from storage.locks import file_lock
from storage.releases import Releases
from storage.snapshot import Snapshot

CLEANED = "cleaned_texts"


def inputs_of(recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    """What a re-distillation rests on, without making anything: `recipe`, sources and teachers by name.

    Raises:
        ValueError: A source or a teacher is not there, or cannot be read.
    """
    steps = {step.name: step for step in all_steps(release_step(recipe))}
    found = {"recipe": digest(recipe.settings("redistil", "description", "owners"))}
    for name in (CLEANED, *(teacher_step(recipe, teacher).name for teacher in recipe.teachers)):
        read = steps[name].sources
        found |= {f"{name}: {key}": value for key, value in (read(workspace) if read else {}).items()}
    return found


def redistil(recipe: Recipe, runner: Runner, now: datetime | None = None, *, force: bool = False) -> Entry:
    """Do it all again as far as it is worth it, and note in the ledger what came of it.

    What fails for its input leaves what is released in place, and is tried again the next time; so is what was killed,
    from where it stopped. One process at a time does this for a recipe; another one waits, and then finds nothing new.
    With `force` it trains although nothing, or little, is new.

    Raises:
        RecipeError: The recipe does not ask for it.
    """
    settings = _settings(recipe)
    began, at = time.monotonic(), now or datetime.now(UTC)
    ledger = Ledger(runner.workspace, recipe.name)

    def wait() -> None:
        runner.log.info("another process is re-distilling this recipe; waiting for it.")

    with file_lock(runner.workspace, f"redistil-{recipe.name}", wait):
        attempt = Attempt(recipe, settings, runner, ledger)
        try:
            entry = attempt.run(at, force)
        except ValueError as refused:
            entry = attempt.entry("failed", str(refused))
        if entry.verdict in TRAINED:
            for line in apply_retention(recipe, runner.workspace):
                runner.log.info(f"let go: {line}")
        entry = replace(
            entry,
            started_at=at.astimezone(UTC).isoformat(timespec="seconds"),
            release=Releases(runner.workspace, recipe.name).current(),
            seconds=round(time.monotonic() - began, 2),
        )
        ledger.add(entry)
    runner.log.info(str(entry))
    return entry


def apply_retention(recipe: Recipe, workspace: Workspace, *, dry_run: bool = False) -> list[str]:
    """Let go of what the recipe's `keep` and `retention_days` do not keep, and say what it was; see `collect_garbage`.

    Raises:
        RecipeError: The recipe does not ask for re-distillation.
    """
    settings = _settings(recipe)
    return collect_garbage(workspace, recipe.name, settings.keep, settings.retention_days, dry_run=dry_run)


def _settings(recipe: Recipe) -> Redistil:
    if recipe.redistil is None:
        raise RecipeError(
            f"recipe {recipe.name!r}: says nothing of re-distillation. Add `redistil: true`, or settings for it."
        )
    return recipe.redistil


class Attempt:
    """One pass over a recipe; see `redistil`."""

    def __init__(self, recipe: Recipe, settings: Redistil, runner: Runner, ledger: Ledger) -> None:
        self._recipe = recipe
        self._settings = settings
        self._runner = runner
        self._looked_at, self._trained = ledger.looked_at(), ledger.trained()
        self._workspace = runner.workspace
        self._found: dict[str, Any] = {"inputs": {}}

    def entry(self, verdict: Any, why: str) -> Entry:
        """What is known so far, with what came of it."""
        return Entry(started_at="", recipe=self._recipe.name, verdict=verdict, why=why, **self._found)

    def run(self, at: datetime, force: bool) -> Entry:
        """Go as far as it is worth it."""
        self._found["inputs"] = inputs = inputs_of(self._recipe, self._workspace)
        if not force and self._looked_at and self._looked_at.inputs == inputs:
            return self.entry("nothing new", "sources, teachers and recipe are as they were")
        check_recipe(self._recipe, self._workspace)
        self._make(concatenation_step(self._recipe))
        folder = released_folder(self._recipe, self._workspace)
        released = Tracer(self._workspace).of_folder(folder) if folder else None
        self._found["new_texts"] = new = self._new_texts(released)
        if not force and (little := self._too_little(released, inputs)):
            return self.entry("too little new", little)
        if released and self._settings.continue_from_release:
            self._continue_from(released)
        gate = self._make(gate_step(self._recipe))
        made = self._runner.find(release_step(self._recipe))
        if made and released and made.digest == released.digest:
            return self.entry("nothing new", "what comes of it is what is served")
        student = self._mean(f"stage_{len(self._recipe.stages)}")
        self._found["score"] = round(student, 2)
        if failed := failed_verdicts(gate.folder):
            return self.entry("rejected", f"{new:,} new texts; the gate is closed: {'; '.join(failed)}")
        before = self._released_mean()
        if before is not None and student - before < self._settings.min_gain:
            asked = f"{self._settings.min_gain:+g} asked" if self._settings.min_gain else "less than is released"
            return self.entry("rejected", f"{new:,} new texts; mean {before:.2f} -> {student:.2f}, {asked}")
        self._promote(at)
        grown = (
            f"mean {before:.2f} -> {student:.2f}" if before is not None else f"mean {student:.2f}, the first release"
        )
        return self.entry("promoted", f"{new:,} new texts; {grown}")

    def _make(self, last: Step) -> Artefact:
        """Make a step and all that it rests on; counts what was embedded."""
        for step in all_steps(last):
            artefact = self._runner.make(step)
            if step.name.startswith("teacher_vectors/") and not artefact.reused:
                done = artefact.manifest.metrics["embedded_now"]
                self._found["embedded"] = self._found.get("embedded", 0) + done
        return artefact

    def _snapshots(self, released: Node | None) -> tuple[Snapshot | None, Snapshot]:
        """What the release learned from, if it is still there, and what there is now."""
        made = self._runner.find(concatenation_step(self._recipe))
        assert made is not None
        now = Snapshot.open(self._workspace, self._recipe.name, made.manifest.identity.key)
        node = released.all["concatenated_vectors"] if released else None
        if node is None or node.manifest is None:
            return None, now
        return Snapshot.open(self._workspace, self._recipe.name, node.manifest.identity.key), now

    def _new_texts(self, released: Node | None) -> int:
        before, now = self._snapshots(released)
        return len(now) if before is None else len(np.setdiff1d(now.keys, before.keys))

    def _too_little(self, released: Node | None, inputs: Mapping[str, str]) -> str | None:
        """Why it is not worth training: few texts are new and the vectors lie as they did; None where it is.

        Drift is measured on a sample, against what the release learned from, so small changes add up until they count.
        """
        if released is None or self._trained is None:
            return None
        names = {
            name for name in {*inputs, *self._trained.inputs} if inputs.get(name) != self._trained.inputs.get(name)
        }
        if any(not name.startswith(CLEANED) for name in names):
            return None
        before, now = self._snapshots(released)
        if before is None:
            return None
        share = self._found["new_texts"] / len(before)
        changes = [row["changed_neighbours"] or 0.0 for row in snapshot_drift(before, now)]
        change = max(changes, default=0.0)
        if share >= self._settings.min_new_fraction or change >= self._settings.min_neighbor_change:
            return None
        return (
            f"{self._found['new_texts']:,} new texts, {100 * share:.2f}% of {len(before):,}, and {100 * change:.2f}% "
            f"of neighbours changed; training begins at {100 * self._settings.min_new_fraction:g}% or "
            f"{100 * self._settings.min_neighbor_change:g}%"
        )

    def _continue_from(self, released: Node) -> None:
        """Begin with the encoder of the release."""
        last = max((name for name in released.all if name.startswith("stage_")), key=lambda n: int(n.split("_")[1]))
        node = released.all[last]
        if node.folder is not None:
            set_start(self._workspace, self._recipe.name, Start(last, node.folder.name, node.digest))

    def _mean(self, model: str) -> float:
        """Mean score of a model at its largest dimension, times 100."""
        report = self._runner.find(report_step(self._recipe))
        assert report is not None
        return 100 * float(at_full_dimension(read_summary(report)["models"])[model]["mean"])

    def _released_mean(self) -> float | None:
        """Mean score of what is released, on the tasks of now."""
        steps = {step.name: step for step in all_steps(gate_step(self._recipe))}
        scored = self._runner.find(steps["mteb/released"])
        scores = [row["score"] for row in scored.manifest.metrics["scores"]] if scored else []
        return 100 * sum(scores) / len(scores) if scores else None

    def _promote(self, at: datetime) -> None:
        """Make the release, and serve it."""
        artefact = self._make(release_step(self._recipe))
        promote_release(artefact, self._recipe, self._workspace, f"{at:%Y-%m-%d}-{artefact.folder.name[:8]}")
