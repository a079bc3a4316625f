"""What can be found out before any expensive work: files, models, dimensions, lengths, disk space."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from storage.workspace import Workspace

from stella_assets.core.models import model_folder
from stella_assets.corpus.clean import load_identifier
from stella_assets.corpus.evaluation_sets import set_digest
from stella_assets.corpus.sources import check_source
from stella_assets.evaluation.tasks import check_tasks
from stella_assets.recipe import LsaTeacher, Recipe, RecipeError, Teacher
from stella_assets.release.gate import check_gate

WORKING_SPACE = 512 * 2**20


def check_recipe(recipe: Recipe, workspace: Workspace) -> int | None:
    """Check everything that a run would trip over later.

    Returns:
        Dimensions of the concatenated vector, or None where a model of the hub does not tell without a download.

    Raises:
        ValueError: A file, a model, a dimension or the disk will not do; the message names it and the remedy.
    """
    for source in recipe.corpus.sources:
        check_source(source)
    if recipe.corpus.clean.languages:
        load_identifier()
    for chosen in recipe.corpus.decontaminate.sets if recipe.corpus.decontaminate else ():
        set_digest(chosen)
    check_gate(recipe, check_tasks(recipe))
    _check_student(recipe)
    dims = [_teacher_dim(teacher) for teacher in recipe.teachers]
    target = sum(dim for dim in dims if dim is not None) if None not in dims else None
    if target is not None:
        _check_dimensions(recipe, target)
    limits = [source.limit for source in recipe.corpus.sources]
    texts = sum(limit for limit in limits if limit) if all(limits) else 0
    # Teacher vectors and their concatenation, two bytes an entry.
    workspace.require_space(WORKING_SPACE + texts * (target or 0) * 4, f"recipe {recipe.name!r}")
    return target


def _check_dimensions(recipe: Recipe, target: int) -> None:
    for dim in recipe.student.matryoshka_dims:
        if dim > target:
            raise RecipeError(
                f"recipe {recipe.name!r}: student.matryoshka_dims {dim} is above the {target} dimensions of the teachers' "
                f"concatenation. Take at most {target}."
            )
    heads = sorted({target, *recipe.student.matryoshka_dims}, reverse=True)
    if recipe.release.dimension not in heads:
        raise RecipeError(
            f"recipe {recipe.name!r}: release.dimension {recipe.release.dimension} is none of the student's heads "
            f"({', '.join(map(str, heads))}). Name one of these, or add it to student.matryoshka_dims."
        )


def _check_student(recipe: Recipe) -> None:
    student = recipe.student
    if student.on_hub:
        return
    config = _read_config(model_folder(student))
    layers = int(config.get("num_hidden_layers", 0))
    try:
        kept = len(student.kept_layers(layers))
    except ValueError as error:
        raise RecipeError(f"recipe {recipe.name!r}: student.{error}") from None
    positions = config.get("max_position_embeddings")
    if positions and student.max_length > int(positions):
        raise RecipeError(
            f"recipe {recipe.name!r}: student.max_length {student.max_length} is above the {positions} positions of "
            f"{student.model}. Lower it."
        )
    for number, stage in enumerate(recipe.stages, 1):
        if stage.train_layers != "all" and stage.train_layers > kept:
            raise RecipeError(
                f"recipe {recipe.name!r}: stages.{number - 1}.train_layers {stage.train_layers}: the student has "
                f"{kept} layers. Lower it, or say `all`."
            )


def _teacher_dim(teacher: Teacher) -> int | None:
    if isinstance(teacher, LsaTeacher):
        return teacher.dim
    if teacher.on_hub:
        return None
    folder = model_folder(teacher)
    if teacher.dense_folder:
        if not (folder / teacher.dense_folder / "config.json").is_file():
            raise RecipeError(f"{folder}: there is no Dense layer in {teacher.dense_folder!r}. Correct `dense_folder`.")
        return int(_read_config(folder / teacher.dense_folder)["out_features"])
    modules = folder / "modules.json"
    if modules.is_file():
        for module in reversed(json.loads(modules.read_text(encoding="utf-8"))):
            inner = folder / module["path"] / "config.json"
            config = json.loads(inner.read_text(encoding="utf-8")) if inner.is_file() else {}
            for key in ("out_features", "word_embedding_dimension", "embedding_dimension"):
                if key in config:
                    return int(config[key])
    return int(_read_config(folder)["hidden_size"])


def _read_config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))
