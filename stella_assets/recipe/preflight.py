"""What can be found out before any expensive work: files, models, dimensions, lengths, disk space."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from stella_assets.core.devices import Compute
from stella_assets.core.environments import Environments
from stella_assets.core.errors import UserError
from stella_assets.core.models import hub_states
from stella_assets.core.services import Services
from stella_assets.corpus.clean import require_languages
from stella_assets.corpus.evaluation_sets import set_digest
from stella_assets.corpus.sources import Preview
from stella_assets.evaluation.scores import CONCATENATION, student_prompts
from stella_assets.evaluation.task_set import check_tasks
from stella_assets.evaluation.variants import paraphrase
from stella_assets.recipe.read import RecipeError
from stella_assets.recipe.recipe import Recipe
from stella_assets.release.gate import check_gate, check_terms
from stella_assets.release.retrievers.gate import check_min_gain
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.kinds import TeacherConfig
from stella_assets.teachers.scorers import PairScorerConfig
from stella_assets.teachers.snapshot import Layout

# Manifests, tables, plots and logs of a small run. A larger need is known only when the work begins.
WORKING_SPACE = 512 * 2**20


def check_recipe(
    recipe: Recipe, workspace: Workspace, on_preview: Callable[[str, Preview], object] = lambda _name, _preview: None
) -> int | None:
    """Check everything that a run would fail on later.

    No step is made.

    Args:
        recipe: The recipe, already validated by itself.
        workspace: Where a run would write.
        on_preview: Is told what the first rows of each source show, by the source's name.

    Returns:
        Dimensions of the student's full head: of the vectors of the teachers that teach it, side by side. None where a
        model of the hub does not tell without a download.

    Raises:
        StellaError: A file, a model or a dimension cannot be used; the message names it and the remedy.
        DiskSpaceError: A disk that is written has too little space.
    """
    # Cheap checks first: a missing file is reported before a model is loaded.
    check_terms(recipe.release.distribution, recipe.stated_terms())
    if recipe.retrievers:
        check_terms(recipe.release.distribution, recipe.retriever_terms())
    _require_splits(recipe)
    for source in recipe.corpus.sources:
        on_preview(source.name, source.preview())
    require_languages(recipe.corpus.clean.languages)
    for chosen in recipe.corpus.decontaminate.sets if recipe.corpus.decontaminate else ():
        set_digest(chosen)
    tasks = check_tasks(recipe.evaluation)
    check_gate(
        recipe.release.gate,
        evaluation=recipe.evaluation,
        tasks=tasks,
        teachers=[teacher.name for teacher in recipe.teachers],
        scored=_scored(recipe),
        dims=recipe.student.matryoshka_dims,
        decontaminates=recipe.corpus.decontaminate is not None,
    )
    recipe.student.check(recipe.stages)
    for retriever in recipe.retrievers:
        retriever.check(recipe.student)
        check_min_gain(retriever, evaluation=recipe.evaluation, tasks=tasks)
    for scorer in recipe.pair_scores:
        scorer.check()
    dims = {teacher.name: teacher.check() for teacher in recipe.teachers}
    known = {name: dim for name, dim in dims.items() if dim is not None}
    _require_space(recipe, workspace, sum(known.values()) if known.keys() == dims.keys() else None)
    # A partial sum would be compared with the student's heads as if it were the whole target.
    if not known.keys() >= set(recipe.taught_by()):
        return None
    weights = {teacher.name: teacher.weight for teacher in recipe.teachers}
    layout = Layout(tuple(known), tuple(known.values()), tuple(weights[name] for name in known)).of(recipe.taught_by())
    recipe.student.require_prefixes(layout.leading(recipe.stages[0].teachers))
    _check_dimensions(recipe, layout.dim)
    return layout.dim


def _scored(recipe: Recipe) -> list[str]:
    """What is scored of the teachers and their concatenation, as the gate names them."""
    scored = [teacher.name for teacher in recipe.teachers if teacher.is_scored()]
    return [*scored, CONCATENATION] if set(recipe.taught_by()) <= set(scored) else scored


def check_access(asked: Iterable[TeacherConfig | PairScorerConfig], services: Services) -> None:
    """Make sure that the teachers and scorers that others run can be asked; nothing is sent.

    Raises:
        UserError: A key is missing.
    """
    for each in asked:
        each.check_access(services)


def access_states(recipe: Recipe, services: Services) -> list[str]:
    """What `validate` says of keys that are missing, one line each."""
    lines = []
    for asked in (*recipe.teachers, *recipe.pair_scores):
        try:
            asked.check_access(services)
        except UserError as missing:
            lines.append(str(missing))
    return lines


def _require_splits(recipe: Recipe) -> None:
    """Raise `RecipeError` for a split that would be empty, by the limits of the sources."""
    limits = [source.limit for source in recipe.corpus.sources]
    # Without a limit for every source the number of texts is unknown here; the corpus has a check then.
    texts = sum(limit for limit in limits if limit) if all(limits) else None
    for split, share in recipe.corpus.splits().items():
        if texts is not None and texts * share < 1:
            raise RecipeError(
                f"recipe {recipe.name!r}: {split} is to have {share:g} of at most {texts:,} texts, less than one.",
                "Correct corpus.dev or corpus.test, or raise the limits of corpus.sources.",
            )


def remarks(recipe: Recipe) -> list[str]:
    """What a recipe asks for without effect, and what is left out of it, as sentences."""
    prompts = student_prompts(recipe.student, recipe.evaluation)
    lines = [
        f"teacher {teacher.name!r} is not scored, nor is a concatenation with it: the texts of the tasks would be sent "
        "and paid. `evaluate: true` does so."
        for teacher in recipe.teachers
        if not teacher.is_scored()
    ]
    lines += [
        f"teacher {teacher.name!r} is scored, so the texts of the tasks are sent and paid, too; the plan does not "
        "count them, `max_cost` and `max_tokens` do."
        for teacher in recipe.teachers
        if teacher.paid and teacher.is_scored()
    ]
    if recipe.evaluation.paraphrases and not paraphrase(prompts):
        lines += [
            "evaluation.paraphrases has no effect: no paraphrase that comes with this package changes a prompt of "
            "evaluation.prompts."
        ]
    return lines


def rehearse_recipe(recipe: Recipe, dimension: int | None, compute: Compute) -> str:
    """Rehearse training and release with the untouched student, and leave nothing behind.

    Args:
        recipe: That `check_recipe` accepted.
        dimension: What `check_recipe` returned.
        compute: Where the student computes.

    Returns:
        What to tell of it, one line.

    Raises:
        UserError: The student could be trained and not be released, or not be trained.
    """
    student = recipe.student
    if student.on_hub:
        return f"The student is not rehearsed here: {student.model} would be downloaded. A run rehearses it first."
    from stella_assets.release.loaders import worst_loader
    from stella_assets.release.rehearsal import rehearse

    with tempfile.TemporaryDirectory() as scratch:
        found = rehearse(student, recipe.release, recipe.stages, dimension, Path(scratch), compute)
    least = worst_loader(found.loaders)["least_cosine"]
    return f"Rehearsed: every stage trains a batch, and every loader gives the student's vectors (cosine {least:.6f})."


def examine_teachers(recipe: Recipe, workspace: Workspace, compute: Compute) -> list[str]:
    """Compare a few vectors of the teachers that lie on this machine with those of their authors' library.

    Args:
        recipe: That `check_recipe` accepted.
        workspace: Remembers what was found, so that a run need not do it again.
        compute: Where the teachers compute.

    Returns:
        What to tell of them, one line each.

    Raises:
        UserError: A teacher cannot be loaded, or does not make its authors' vectors.
    """
    from stella_assets.teachers.known_vectors import require_examined

    examined = [
        teacher
        for teacher in recipe.teachers
        if (model := teacher.published_model()) and not model.on_hub and not teacher.own_environment()
    ]
    for teacher in examined:
        require_examined(teacher, Path(), compute, workspace, lambda _said: None)
    return [f"Examined: teacher {each.name!r} makes the vectors of its authors' library." for each in examined]


def check_environments(teachers: Iterable[TeacherConfig], environments: Environments) -> None:
    """Make sure that the teachers' own environments exist or may be made; none is made here.

    Raises:
        EnvironmentNotAllowedError: One has to be made, and nobody allowed that.
        UserError: Its requirements cannot be used, or this machine lacks its Python.
    """
    for teacher in teachers:
        if own := teacher.own_environment():
            environments.check(own, f"teacher {teacher.name!r}")


def environment_states(recipe: Recipe, environments: Environments) -> list[str]:
    """What `validate` says of the environments that a recipe needs, one line each. None is made."""
    return [
        f"teacher {teacher.name!r} needs {environments.state(own)}."
        for teacher in recipe.teachers
        if (own := teacher.own_environment())
    ]


def model_states(recipe: Recipe) -> list[str]:
    """What `validate` says of models of the hub, one line each. None is downloaded.

    Raises:
        HubError: The hub answers that it has no such model.
    """
    return hub_states(recipe.published_models())


def _check_dimensions(recipe: Recipe, target: int) -> None:
    # The evaluation scores untrained heads of no student, and takes the largest head for the best one.
    for dim in recipe.student.matryoshka_dims:
        if dim > target and not any(stage.matryoshka_losses(dim) for stage in recipe.stages):
            raise RecipeError(
                f"recipe {recipe.name!r}: student.matryoshka_dims {dim} is above the {target} dimensions of the "
                "teachers' concatenation, and no stage trains it.",
                f"Add `matryoshka_heads` to a stage, or take at most {target}.",
            )
    heads = sorted({target, *recipe.student.matryoshka_dims}, reverse=True)
    if recipe.release.dimension not in heads:
        raise RecipeError(
            f"recipe {recipe.name!r}: release.dimension {recipe.release.dimension} is not one of the student's heads "
            f"({', '.join(map(str, heads))}).",
            "Name one of these, or add it to student.matryoshka_dims.",
        )


def _require_space(recipe: Recipe, workspace: Workspace, target: int | None) -> None:
    """Space on both disks: vectors may be kept elsewhere than artefacts and checkpoints."""
    limits = [source.limit for source in recipe.corpus.sources]
    # Without a limit for every source the number of texts is unknown here, so only the working space is required.
    texts = sum(limit for limit in limits if limit) if all(limits) else 0
    purpose = f"recipe {recipe.name!r}"
    workspace.require_space(WORKING_SPACE, purpose, workspace.root)
    # An object store reports no free space.
    if not workspace.remote:
        # Teacher vectors and their concatenation, two bytes per entry.
        workspace.require_space(WORKING_SPACE + texts * (target or 0) * 4, purpose, Path(workspace.vectors))
