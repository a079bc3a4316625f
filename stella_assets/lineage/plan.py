"""What the next run of a recipe would make, why, and what it would cost by the speeds of past runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stella_assets.core.manifest import Manifest, reasons
from stella_assets.core.step import Artefact, Runner, Step, all_steps
from stella_assets.corpus.read import CorpusTexts
from stella_assets.recipe import Recipe, Stage
from stella_assets.release.publish import release_step
from stella_assets.teachers.encode import TeacherVectors, teacher_step
from storage.artefacts import MANIFEST, finished

State = Literal["there", "made"]


@dataclass(frozen=True)
class Planned:
    """What becomes of one asset.

    Attributes:
        asset: Its name.
        state: `there`, or that it would be `made`.
        because: Why.
        work: How much, in texts and steps; empty where it has no such measure or nothing is done.
        seconds: What it would take by the last run of its like; None where nothing like it was run.
    """

    asset: str
    state: State
    because: tuple[str, ...] = ()
    work: str = ""
    seconds: float | None = 0.0


def plan(recipe: Recipe, runner: Runner) -> list[Planned]:
    """What a run would do with each asset, in its order. Nothing is made, and no model is loaded."""
    planned: dict[str, Planned] = {}
    for step in all_steps(release_step(recipe)):
        if runner.find(step) is not None:
            planned[step.name] = Planned(step.name, "there")
            continue
        follows = [need.name for need in step.needs if planned[need.name].state == "made"]
        because = reasons(runner.known_identity(step), runner.before(step), follows)
        last = _last_of_its_like(step, runner)
        work, seconds = _cost(recipe, step, last, runner)
        planned[step.name] = Planned(step.name, "made", tuple(because), work, seconds)
    return list(planned.values())


def _last_of_its_like(step: Step, runner: Runner) -> Manifest | None:
    """What the recipe had for the step; else the newest of the asset that any recipe has."""
    before = runner.before(step)
    if before is not None:
        return before
    paths = [folder / MANIFEST for folder in finished(runner.workspace, step.name)]
    return Manifest.read(max(paths, key=lambda path: path.stat().st_mtime)) if paths else None


def _cost(recipe: Recipe, step: Step, last: Manifest | None, runner: Runner) -> tuple[str, float | None]:
    seconds = float(last.run_info["seconds"]) if last else None
    if step.name.startswith("teacher_vectors/"):
        return _encoding(recipe, step, last, runner)
    if step.name.startswith("stage_"):
        return _training(recipe.stages[int(step.name.removeprefix("stage_")) - 1], last, seconds)
    return "", seconds


def _encoding(recipe: Recipe, step: Step, last: Manifest | None, runner: Runner) -> tuple[str, float | None]:
    """Texts without a vector of this teacher; a corpus that is still to be made has no texts to count."""
    speed = last and last.metrics["texts_per_second"]
    corpus = runner.find(step.needs[0])
    if corpus is None:
        return "the texts that are new", None
    texts = CorpusTexts(corpus)
    missing = len(texts)
    before = runner.before(step)
    if before is not None and _same_teacher(before, step, runner):
        folder = runner.workspace.current(step.recipe, step.name).resolve()
        (teacher,) = (teacher for teacher in recipe.teachers if step.name == teacher_step(recipe, teacher).name)
        vectors = TeacherVectors.open(teacher, Artefact(step.name, folder, before), runner.workspace)
        missing = vectors.count_missing(texts)
    return f"{missing:,} of {len(texts):,} texts to embed", missing / speed if speed else None


def _same_teacher(before: Manifest, step: Step, runner: Runner) -> bool:
    """Whether the vectors that are there are those of the teacher as the recipe has it now."""
    changed = reasons(runner.known_identity(step), before)
    return step.settings["kind"] != "lsa" and changed == ["corpus changed"]


def _training(stage: Stage, last: Manifest | None, seconds: float | None) -> tuple[str, float | None]:
    """Steps and texts, and the time by the last run's speed."""
    if stage.method == "closed_form":
        return "solved in one pass", seconds
    metrics: Mapping[str, Any] = last.metrics if last else {}
    texts = stage.texts or (stage.steps * stage.batch if stage.steps and stage.batch else None)
    steps = stage.steps or (round(texts / stage.batch) if texts and stage.batch else None)
    parts = [f"{steps:,} steps" if steps else "", f"{stage.batch} texts" if stage.batch else ""]
    work = " of ".join(filter(None, parts))
    for wanted, done in ((texts, metrics.get("texts_seen")), (steps, metrics.get("steps"))):
        if wanted and done and seconds:
            return work or f"{texts:,} texts", seconds * wanted / done
    return work or f"{texts:,} texts", None
