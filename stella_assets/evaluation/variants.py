"""The step `scores/variants`: the last stage with quantized vectors, and with paraphrased prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

import yaml

from stella_assets.core.step import Artefact, BuildContext, Result, Step
from stella_assets.evaluation.model_scores import ModelScores, compare_scores, present_scores, show_models
from stella_assets.evaluation.quantized import BITS, QuantizedEmbedder
from stella_assets.evaluation.scores import score_models, stage_embedders
from stella_assets.evaluation.summary import ALL_TASKS, ParaphraseSummary, QuantizationSummary
from stella_assets.evaluation.task_set import TaskSet
from stella_assets.storage.workspace import Workspace

if TYPE_CHECKING:
    from stella_assets.evaluation.encoders import Embedder
    from stella_assets.evaluation.quantized import Precision
    from stella_assets.evaluation.scoreboard import Scoreboard
    from stella_assets.evaluation.settings import EvaluationSettings
    from stella_assets.students.dense.settings import SavedStudent

CODE_VERSION = "3"


@dataclass(frozen=True)
class Variants:
    """What is scored in addition to the models.

    Attributes:
        quantizations: Of the student's vectors.
        paraphrased: Prompts by mteb's keys, by the name of the paraphrase.
        dimension: Of the vectors with paraphrased prompts.
    """

    quantizations: tuple[Precision, ...] = ()
    paraphrased: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    dimension: int = 0


@dataclass(frozen=True)
class VariantScores(ModelScores):
    """The scores of variants.

    Attributes:
        variants: What was scored.
    """

    variants: Variants


def variants_step(
    recipe: str,
    *,
    evaluation: EvaluationSettings,
    prompts: Mapping[str, str],
    all_heads: bool,
    dimension: int,
    stage: Step[SavedStudent],
    tasks: Step[TaskSet],
) -> Step[VariantScores] | None:
    """The step that scores variants of the last stage; None where the recipe asks for none.

    Args:
        recipe: Name of the recipe.
        evaluation: Which variants.
        prompts: For tasks, by mteb's keys.
        all_heads: Whether the Matryoshka heads are trained; else only the full head is quantized.
        dimension: Of the vectors with paraphrased prompts.
        stage: The last stage.
        tasks: What it is scored on.
    """
    paraphrased = paraphrase(prompts) if evaluation.paraphrases else {}
    variants = Variants(evaluation.quantizations, paraphrased, dimension)
    if not variants.quantizations and not paraphrased:
        return None

    def read(artefact: Artefact, _workspace: Workspace) -> VariantScores:
        return VariantScores(artefact.folder, artefact.manifest.metrics, variants)

    def build(context: BuildContext) -> Result:
        task_set = context.read(tasks)
        embedders = list(_embedders(variants, stage, prompts, all_heads, task_set.probe_texts(), context))
        return score_models(recipe, embedders, task_set, context)

    return Step(
        recipe=recipe,
        name="scores/variants",
        code_version=CODE_VERSION,
        settings={
            "quantizations": list(variants.quantizations),
            "paraphrased": paraphrased,
            "prompts": dict(prompts),
            "dimension": dimension,
        },
        dependencies=(tasks, stage),
        read=read,
        build=build,
        compare=compare_scores,
        presentation=present_scores(
            "the last stage with quantized vectors and with paraphrased prompts", show=show_models
        ),
    )


def paraphrase(prompts: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Prompts in other words, from those that come with this package.

    Args:
        prompts: By mteb's keys.

    Returns:
        All prompts, by the name of the paraphrase; paraphrases that change none of them are left out.
    """
    found = {}
    for name, replacements in _shipped().items():
        changed = dict(prompts)
        for old, new in replacements.items():
            # Replacements of one paraphrase build on each other, in the order of the file.
            changed = {key: prompt.replace(old, new) for key, prompt in changed.items()}
        # An unchanged set of prompts would only score the student a second time.
        if changed != dict(prompts):
            found[name] = changed
    return found


@lru_cache
def _shipped() -> dict[str, dict[str, str]]:
    """Replacements by the name of the paraphrase."""
    return yaml.safe_load(files(__package__).joinpath("paraphrases.yaml").read_text(encoding="utf-8"))


def _embedders(
    variants: Variants,
    stage: Step[SavedStudent],
    prompts: Mapping[str, str],
    all_heads: bool,
    probe: list[str],
    context: BuildContext,
) -> Iterator[tuple[str, Embedder]]:
    # All variants share the heads' pooled states: only paraphrases encode texts again.
    heads = stage_embedders(stage, prompts, context, all_heads=all_heads)
    for precision in variants.quantizations:
        for embedder in heads:
            yield precision, QuantizedEmbedder(embedder, precision, probe)
    for name, changed in variants.paraphrased.items():
        yield name, heads[0].with_prompts(changed, variants.dimension)


def summarise_quantizations(board: Scoreboard, student: str, variants: Variants) -> tuple[QuantizationSummary, ...]:
    """The loss of quantized vectors, compared with the student's float32 vectors.

    Args:
        board: Has the scores of student and variants.
        student: Name of the last stage.
        variants: What was scored.

    Returns:
        One summary per precision and dimension.
    """
    tasks = board.groups[ALL_TASKS]
    return tuple(
        QuantizationSummary(
            precision=name,
            dimension=dim,
            # Per vector, without the ranges of int8, which an index stores once.
            bytes=dim * BITS[name] // 8,
            mean=round(board.mean((name, dim), tasks), 6),
            difference=board.difference((name, dim), (student, dim), tasks),
        )
        for name, dim in board.models
        if name in variants.quantizations
    )


def summarise_paraphrases(
    board: Scoreboard, student: str, variants: Variants
) -> tuple[tuple[ParaphraseSummary, ...], tuple[str, ...]]:
    """The effect of paraphrased prompts, compared with the recipe's own.

    Args:
        board: Has the scores of student and variants.
        student: Name of the last stage.
        variants: What was scored.

    Returns:
        One summary per paraphrase, over the tasks whose scores a paraphrase changes, and these tasks.
    """
    plain = (student, variants.dimension)
    names = [name for name in variants.paraphrased if (name, variants.dimension) in board.points]
    others = [board.points[name, variants.dimension] for name in names]
    # Tasks whose prompts no paraphrase touches would dilute the effect.
    asked = [
        task for task in board.groups[ALL_TASKS] if any(scores[task] != board.points[plain][task] for scores in others)
    ]
    summaries = tuple(
        ParaphraseSummary(
            name=name,
            mean=round(board.mean((name, variants.dimension), asked), 6),
            difference=board.difference((name, variants.dimension), plain, asked),
        )
        for name in (names if asked else ())
    )
    return summaries, tuple(asked)
