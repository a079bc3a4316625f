"""What a recipe needs and this machine does not have. Only names and small files are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stella_assets.core.config import ModelSource
from stella_assets.core.environments import EnvironmentConfig, Environments
from stella_assets.core.errors import EXPECTED
from stella_assets.core.models import is_cached, model_folder
from stella_assets.corpus.clean import load_identifier
from stella_assets.recipe.recipe import Recipe


def missing(recipe: Recipe, environments: Environments) -> Iterator[str]:
    """Files and packages of sources, models, and environments of teachers that are not here, a sentence each.

    The hub is not asked, and data of evaluation tasks is not looked for: `check_recipe` does.

    Args:
        recipe: The recipe.
        environments: Of the workspace.
    """
    checks = [source.check for source in recipe.corpus.sources]
    checks += [load_identifier] if recipe.corpus.clean.languages else []
    for check in checks:
        yield from _refusal(check)
    for owner, model in recipe.published_models().items():
        yield from (f"{owner}: {line}" for line in _of_model(model))
    for teacher in recipe.teachers:
        if own := teacher.own_environment():
            yield from (f"teacher {teacher.name!r}: {line}" for line in _of_environment(own, environments))


def _refusal(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except EXPECTED as error:
        return [str(error)]
    return []


def _of_model(model: ModelSource) -> list[str]:
    if not model.on_hub:
        return _refusal(lambda: model_folder(model))
    return [] if is_cached(model) else [f"{model.model} is not in the cache; a run downloads it."]


def _of_environment(config: EnvironmentConfig, environments: Environments) -> list[str]:
    if refused := _refusal(lambda: environments.locate(config)):
        return refused
    reason = environments.locate(config).damage()
    return [f"its environment {reason}; `stella run --allow-environments` makes it."] if reason else []
