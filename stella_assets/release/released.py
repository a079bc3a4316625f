"""The step `mteb/released`: what is released now, on the tasks and data of now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from storage.workspace import Workspace

from stella_assets.core.manifest import Check, Manifest
from stella_assets.core.step import BuildContext, Result, Step
from stella_assets.evaluation.score import SAMPLES_FILE, SCORES_FILE, score_model, student_prompts
from stella_assets.evaluation.tasks import tasks_step
from stella_assets.recipe import Recipe
from storage.artefacts import MANIFEST
from storage.releases import Releases
from storage.statistics import MODEL_SAMPLES, SCORES, write_table

if TYPE_CHECKING:
    from stella_assets.evaluation.encoders import Embedder

CODE_VERSION = "1"
RELEASED = "released"


def released_step(recipe: Recipe) -> Step:
    """The step that scores what is released now; without a release it makes an empty table."""
    return Step(
        recipe=recipe.name,
        name=f"mteb/{RELEASED}",
        code_version=CODE_VERSION,
        settings={"prompts": recipe.evaluation.prompts},
        needs=(tasks_step(recipe),),
        sources=lambda workspace: {RELEASED: _released_digest(recipe, workspace)},
        build=lambda context: _score_released(recipe, context),
    )


def _released_digest(recipe: Recipe, workspace: Workspace) -> str:
    folder = released_folder(recipe, workspace)
    return Manifest.read(folder / MANIFEST).digest if folder else "none"


def released_folder(recipe: Recipe, workspace: Workspace) -> Path | None:
    """The model folder that is served now, if anything was promoted.

    Raises:
        ReleaseError: Its files are gone.
    """
    releases = Releases(workspace, recipe.name)
    name = releases.current()
    return releases.folder(name) if name else None


def _score_released(recipe: Recipe, context: BuildContext) -> Result:
    folder = released_folder(recipe, context.workspace)
    if folder is not None:
        return score_model(recipe, [(RELEASED, _embedder(recipe, folder, context.workspace))], context)
    write_table(context.folder / SCORES_FILE, SCORES, [])
    write_table(context.folder / SAMPLES_FILE, MODEL_SAMPLES, [])
    context.log.info("nothing was promoted yet, so there is nothing to compare with")
    return Result(metrics={"scores": []}, checks=(Check("scores_are_in_range", True, "nothing was promoted yet"),))


def _embedder(recipe: Recipe, folder: Path, workspace: Workspace) -> Embedder:
    """The release at its largest dimension, asked with its own prompts."""
    from stella_assets.evaluation.encoders import PooledStates, StudentEmbedder
    from stella_assets.students.dense import Student

    config = json.loads((folder / "config_sentence_transformers.json").read_text(encoding="utf-8"))
    spec = recipe.student.model_copy(update={"matryoshka_heads": "independent"})
    asked = recipe.model_copy(update={"student": spec.model_copy(update={"prompts": config["prompts"]})})
    student = Student.load(folder, spec)
    return StudentEmbedder(PooledStates(student, workspace), student.dims[0], student_prompts(asked))
