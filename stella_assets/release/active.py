"""The scores of the active release: the one that people use now, on the tasks and data of now."""

from __future__ import annotations

import json
from pathlib import Path

from stella_assets.core.errors import UserError
from stella_assets.core.intact import DamagedArtefactError, open_intact
from stella_assets.core.manifest import Check, Manifest
from stella_assets.core.step import BuildContext, Result, Step
from stella_assets.evaluation.model_scores import IN_RANGE, ModelScores, compare_scores, present_scores
from stella_assets.evaluation.scores import score_student, student_prompts
from stella_assets.evaluation.settings import EvaluationSettings
from stella_assets.evaluation.tables import MODEL_SAMPLES, SCORES
from stella_assets.evaluation.task_set import TaskSet
from stella_assets.storage.artefacts import MANIFEST
from stella_assets.storage.errors import MissingReleaseError
from stella_assets.storage.releases import Releases
from stella_assets.storage.workspace import Workspace
from stella_assets.students import FULL, DenseConfig

CODE_VERSION = "3"
ACTIVE = "active_release"
"""Its name among the scored models, and among the step's external versions."""
NO_RELEASE = "none"


class ReleaseGoneError(UserError):
    """The files of the active release are gone or damaged."""


def active_scores_step(
    recipe: str, *, student: DenseConfig, evaluation: EvaluationSettings, tasks: Step[TaskSet]
) -> Step[ModelScores]:
    """The step that scores the active release; without one it makes an empty table.

    Args:
        recipe: Name of the recipe.
        student: The recipe's student, whose kind can load the release.
        evaluation: The prompts of tasks.
        tasks: What it is scored on.

    Returns:
        A step whose artefact reads as scores; the table is empty before the first promotion.
    """

    def build(context: BuildContext) -> Result:
        # Read when it is built, and its digest is in the key: a promotion makes the gate compare anew.
        folder = active_folder(recipe, context.workspace)
        if folder is None:
            return _nothing_to_score(context)
        return _score(recipe, folder, student, evaluation, context.read(tasks), context)

    return Step(
        recipe=recipe,
        name=f"scores/{ACTIVE}",
        code_version=CODE_VERSION,
        settings={"prompts": dict(evaluation.prompts)},
        dependencies=(tasks,),
        external_versions=lambda workspace: {ACTIVE: _digest(recipe, workspace)},
        read=ModelScores.read,
        build=build,
        compare=compare_scores,
        presentation=present_scores("the active release, with which a new release is compared", "release"),
    )


def active_folder(recipe: str, workspace: Workspace) -> Path | None:
    """The model folder of the active release; None where nothing was promoted.

    Args:
        recipe: Name of the recipe.
        workspace: Where it is stored.

    Raises:
        ReleaseGoneError: Its files are gone, or are not those that were promoted.
    """
    releases = Releases(workspace, recipe)
    name = releases.active()
    if name is None:
        return None
    try:
        folder = releases.folder(name)
        if open_intact(workspace, folder).digest != releases.record(name)["digest"]:
            raise MissingReleaseError(f"{folder}: is not what was promoted as {name!r}.", folder)
    except (MissingReleaseError, DamagedArtefactError) as gone:
        raise ReleaseGoneError(
            gone.args[0],
            f"Run `stella release rollback {recipe}`, or remove {workspace.releases / recipe / 'current'} to continue "
            "without a release to compare with.",
        ) from gone
    return folder


def _digest(recipe: str, workspace: Workspace) -> str:
    folder = active_folder(recipe, workspace)
    # The digest and not the name: the same model promoted under two names has the same scores.
    return Manifest.read(folder / MANIFEST).digest if folder else NO_RELEASE


def _nothing_to_score(context: BuildContext) -> Result:
    # Empty tables, so that readers need no special case for the first release.
    SCORES.write(context.folder, [])
    MODEL_SAMPLES.write(context.folder, [])
    context.log.info("nothing was promoted yet, so there is nothing to compare with")
    return Result(metrics={"scores": []}, checks=(Check(IN_RANGE.name, True, "nothing was promoted yet"),))


def _score(
    recipe: str,
    folder: Path,
    student: DenseConfig,
    evaluation: EvaluationSettings,
    tasks: TaskSet,
    context: BuildContext,
) -> Result:
    """Score a release at its largest dimension, with the prompts that it was released with."""
    from stella_assets.evaluation.encoders import PooledStates, StudentEmbedder

    # The recipe's prompts may have changed since; people use the release with its own.
    config = json.loads((folder / "config_sentence_transformers.json").read_text(encoding="utf-8"))
    prompts = student_prompts(student.model_copy(update={"prompts": config["prompts"]}), evaluation)
    states = PooledStates(student.load(folder, context.compute), context.workspace)
    dimensions = states.student.dimensions
    # The full head, unless a Matryoshka head is above it, which then is what the gate compares.
    largest = max(dimensions, key=lambda head: (dimensions[head], head == FULL))
    return score_student(recipe, ACTIVE, [StudentEmbedder(states, largest, prompts)], tasks, context)
