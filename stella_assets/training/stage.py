"""The steps `stage_1`, `stage_2` and so on: each continues from the student of the one before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stella_assets.core.manifest import Manifest, plain
from stella_assets.core.models import model_digest
from stella_assets.core.present import Picture, Shown
from stella_assets.core.seeds import seed_of
from stella_assets.core.step import Artefact, BuildContext, CheckSpec, Deviation, Presentation, Result, Step
from stella_assets.storage.workspace import Workspace
from stella_assets.students import DenseConfig, SavedStudent, StudentError
from stella_assets.teachers.snapshot import Snapshot
from stella_assets.training.inputs import StageInputs
from stella_assets.training.job import run_as_job
from stella_assets.training.snapshot_reference import SnapshotReference
from stella_assets.training.stages import StageConfig
from stella_assets.training.start import read_start, start_folder
from stella_assets.training.tables import TRAINING_LOG
from stella_assets.training.tokens import TOKENS_FILE, TokenTable
from stella_assets.training.train import MODEL_FOLDER

# Part of the identity of every stage: a new value trains all of them again.
CODE_VERSION = "5"
TOKENISED_WITH = "source:student"
"""Of the tokens' identity: the base model."""
START = "start"
"""The external version of the first stage that names what it continues from."""
DEV_LOSS_FELL = CheckSpec("dev_loss_fell", "The loss on held-out texts is lower than before the stage.")


def stage_step(  # noqa: PLR0913 (one per dependency and setting)
    recipe: str,
    *,
    number: int,
    stage: StageConfig,
    student: DenseConfig,
    seed: int,
    concatenation: Step[Snapshot],
    tokens: Step[TokenTable],
    semantic_duplicates: Step[Any] | None,
    previous: Step[SavedStudent] | None,
    starts_matryoshka_heads: bool,
    teachers: tuple[str, ...] | None = None,
    rehearsal: Step[Any] | None = None,
    pairs: Step[Any] | None = None,
    mined_negatives: Step[Any] | None = None,
    prefix: str = "",
) -> Step[SavedStudent]:
    """The step that trains one stage.

    Args:
        recipe: Name of the recipe.
        number: Of the stage, counting from 1.
        stage: Its settings.
        student: Settings of the student.
        seed: Of the heads and of the order of texts.
        concatenation: The teachers' vectors.
        tokens: The student's tokens of the same texts.
        semantic_duplicates: Texts that are not trained on.
        previous: The stage before; None for the first.
        starts_matryoshka_heads: Whether this is the first stage that trains Matryoshka heads.
        teachers: Those that any stage learns from, which the full head has rows for; None for all.
        rehearsal: What has to succeed before the first stage; None for later ones.
        pairs: The pairs of the corpus, for a stage that reads them; None for others.
        mined_negatives: Negatives of their queries, for such a stage; None where the recipe mines none.
        prefix: Of the name, e.g. `seed_1/`. Stages with equal inputs share an artefact, whatever their prefix.

    Returns:
        A step whose artefact is a saved student and the log of its training.
    """
    family = f"stage_{number}"
    optional = (semantic_duplicates, previous, pairs, mined_negatives)

    def build(context: BuildContext) -> Result:
        snapshot = context.artefact(concatenation)
        if previous is None:
            _require_same_base(student, context.artefact(tokens))
        inputs = StageInputs(
            name=family,  # part of the output, which stages of any prefix share
            stage=stage,
            student=student,
            # Named streams of one seed: another order of texts in a later stage leaves the heads as they are.
            seed_of_heads=seed_of(seed, "heads"),
            seed_of_order=seed_of(seed, family),
            snapshot=SnapshotReference(context.workspace, recipe, snapshot.manifest.identity.key),
            tokens=context.artefact(tokens).folder / TOKENS_FILE,
            left_out=context.artefact(semantic_duplicates).folder if semantic_duplicates else None,
            previous=context.read(previous).folder if previous else None,
            start=None if previous else start_folder(context.workspace, recipe),
            starts_matryoshka_heads=starts_matryoshka_heads,
            teachers=teachers,
            folder=context.folder,
            scratch=context.scratch,
            compute=context.compute,
            pairs=context.artefact(pairs).folder if pairs else None,
            mined_negatives=context.artefact(mined_negatives).folder if mined_negatives else None,
        )
        # The same code either way, so the processes that train are not part of the identity.
        return inputs.run(context.log) if context.launch is None else run_as_job(inputs, context.launch)

    def read(artefact: Artefact, _workspace: Workspace) -> SavedStudent:
        return SavedStudent(artefact.folder / MODEL_FOLDER, student)

    def compare(before: Artefact, workspace: Workspace, now: Artefact, workspace_now: Workspace) -> Deviation:
        from stella_assets.training.reproduced import compare_students, probe_texts

        texts = probe_texts(concatenation.read(_current(concatenation, workspace_now), workspace_now))
        return compare_students(read(before, workspace), read(now, workspace_now), texts)

    return Step(
        recipe=recipe,
        name=f"{prefix}{family}",
        family=family,
        code_version=CODE_VERSION,
        # Model and revision count by the digest of the weights, so a copy in another folder is the same student.
        settings={
            "seed": seed,
            "student": student.settings("model", "revision"),
            "stage": stage.settings(),
            # Left out where all teach, so that a recipe that says so has the stages of one that says nothing.
            **({} if teachers is None else {"teachers": list(teachers)}),
        },
        build=build,
        presentation=Presentation(
            group="training",
            description=stage.describe(),
            kinds=frozenset({"pytorch"}),
            checks=(DEV_LOSS_FELL,),
            show=show_loss,
        ),
        read=read,
        dependencies=(concatenation, tokens, *(step for step in optional if step is not None)),
        order_after=() if rehearsal is None else (rehearsal,),
        external_versions=None if previous else lambda workspace: _external_versions(recipe, student, workspace),
        pool="training",
        estimate=lambda _runner, last, size: stage.estimate(last, size),
        tells=lambda last: last.run_info.get("recipe") == recipe and _trains_alike(last, stage, student),
        compare=compare,
    )


def _require_same_base(student: DenseConfig, tokens: Artefact) -> None:
    """The tokens of one model mean nothing to another, and files can be replaced while a run is under way."""
    if tokens.manifest.identity.inputs[TOKENISED_WITH] != model_digest(student):
        raise StudentError(
            f"student.model {student.model}: its files changed after the texts were tokenised.",
            "Run the same command again: what depends on them is made again.",
        )


def _trains_alike(last: Manifest, stage: StageConfig, student: DenseConfig) -> bool:
    """Whether the time of a stage tells that of another one: the same student, and as many of its layers train."""
    then = last.identity.settings
    same = then["stage"].get("train_layers") == stage.train_layers and then["stage"]["method"] == stage.method
    return bool(same and then["student"] == plain(student.settings("model", "revision")))


def _external_versions(recipe: str, student: DenseConfig, workspace: Workspace) -> dict[str, str]:
    """What the first stage begins with: the base model, and the stage that it continues from."""
    start = read_start(workspace, recipe)
    return {"student": model_digest(student)} | ({START: start.digest} if start else {})


def _current(step: Step[Any], workspace: Workspace) -> Artefact:
    """The artefact that a recipe has for a step in a workspace."""
    # Resolved: the link may point elsewhere by the time that the files are read.
    folder = workspace.current(step.recipe, step.name).resolve()
    return Artefact.open(step.stored_as, folder)


def show_loss(artefact: Artefact) -> Mapping[str, Shown]:
    """The curves of a training.

    Args:
        artefact: With a table `training_log`.
    """
    import pyarrow.parquet as pq

    from stella_assets.training.plots import loss_curves

    return {"loss": Picture(loss_curves(pq.read_table(artefact.folder / TRAINING_LOG.file).to_pylist()), "loss")}
