"""The step `rehearsal`, which comes before the first stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import pyarrow.parquet as pq

from stella_assets.core.manifest import Check
from stella_assets.core.models import model_digest
from stella_assets.core.present import Rows, Shown
from stella_assets.core.step import Artefact, BuildContext, CheckSpec, Presentation, Result, Step
from stella_assets.release.loaders import AGREEMENT, agreement, worst_loader
from stella_assets.release.rehearsal import REHEARSAL, rehearse
from stella_assets.release.settings import ReleaseSettings
from stella_assets.release.tables import RELEASED_VECTORS
from stella_assets.storage.tables import write_table
from stella_assets.students import DenseConfig
from stella_assets.training.stages import StageConfig

CODE_VERSION = "3"
LOADERS_FILE = "loaders.parquet"
LIBRARIES = ("sentence-transformers", "torch", "transformers")
"""A student that was rehearsed with other versions of these is rehearsed again."""
WHAT_TRAINS = ("train_layers", "train_embeddings", "gradient_checkpointing")
"""Settings of a stage that decide what takes gradients, and how."""
LOADERS_AGREE = CheckSpec(
    AGREEMENT,
    "The untouched student, saved and loaded in a clean process as a release would be: cosine 0.99999.",
)
BATCH_TRAINS = CheckSpec(
    "one_batch_trains", "In every stage a first batch has a finite loss, and every layer that trains gets a gradient."
)


def rehearsal_step(
    recipe: str, *, student: DenseConfig, release: ReleaseSettings, stages: Sequence[StageConfig]
) -> Step[Artefact]:
    """The step that makes `rehearsal`. It reads no artefact, so it is among the first of a run.

    Args:
        recipe: Name of the recipe.
        student: Settings of the student.
        release: What would be released.
        stages: Those that would train the student.

    Returns:
        A step that fails where training would be in vain.
    """
    return Step(
        recipe=recipe,
        name=REHEARSAL,
        code_version=CODE_VERSION,
        settings={
            "student": student.settings("model", "revision"),
            "release": {"dimension": release.dimension, "onnx": release.onnx},
            # What trains, and not on which losses or for how long: a study of those rehearses its student once.
            "stages": [_trains(stage, student) for stage in stages],
        },
        build=lambda context: _rehearse(student, release, stages, context),
        presentation=Presentation(
            group="training",
            description="Before any training, the untouched student is saved, exported, loaded by every library and "
            "trained for one batch.",
            kinds=frozenset({"pytorch"}),
            checks=(LOADERS_AGREE, BATCH_TRAINS),
            show=_show,
        ),
        external_versions=lambda _workspace: (
            {"student": model_digest(student)} | {library: version(library) for library in LIBRARIES}
        ),
        priority=2,
    )


def _trains(stage: StageConfig, student: DenseConfig) -> dict[str, Any]:
    settings = stage.settings()
    kept = {key: settings[key] for key in WHAT_TRAINS if key in settings}
    return kept | {"heads": [dim for dim in student.matryoshka_dims if stage.matryoshka_losses(dim) is not None]}


def _rehearse(
    student: DenseConfig, release: ReleaseSettings, stages: Sequence[StageConfig], context: BuildContext
) -> Result:
    found = rehearse(student, release, stages, None, context.scratch, context.compute)
    write_table(context.folder / LOADERS_FILE, RELEASED_VECTORS, found.loaders)
    worst = worst_loader(found.loaders)
    return Result(
        metrics={"least_cosine": worst["least_cosine"], "unused_parameters": found.unused},
        # Otherwise the build fails: what comes after it must not begin.
        checks=(
            agreement(found.loaders),
            Check(BATCH_TRAINS.name, True, f"a batch of each of {len(stages)} stages"),
        ),
        # The last digits of a cosine differ between machines.
        unhashed_files=(LOADERS_FILE,),
    )


def _show(artefact: Artefact) -> Mapping[str, Shown]:
    return {"loaders": Rows(pq.read_table(artefact.folder / LOADERS_FILE).to_pylist())}
