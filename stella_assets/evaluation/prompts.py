"""The prompts of a released model, under the names that other libraries look for.

sentence-transformers' `encode_query` and `encode_document` read `query` and `document`; mteb reads names of tasks, task
types and these two (`mteb.models.abs_encoder.get_prompt_name`). A recipe's own names are read by nobody else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mteb.models.abs_encoder import get_prompt_name
from mteb.types import PromptType

from stella_assets.evaluation.encoders import INSTRUCTION, EncodeRequest, Prompts
from stella_assets.evaluation.kinds import TaskKind
from stella_assets.evaluation.tasks import EvaluationTask

SIDES = tuple(side.value for side in PromptType)
SEARCHES = ("Retrieval-query", "Retrieval", "Reranking-query", "Reranking")
"""Whose prompt is that of a query in general, where a recipe states none: most specific first."""


def published_prompts(own: Prompts, measured: Prompts, tasks: Iterable[EvaluationTask]) -> dict[str, str]:
    """The prompts that give a stranger the vectors that were measured.

    Args:
        own: The student's, by the recipe's names.
        measured: What the evaluation used, by mteb's keys; a text may contain `{instruction}`.
        tasks: What was evaluated. `{instruction}` has one meaning per task.

    Returns:
        Texts by name: the recipe's names, `query` and `document`, and mteb's names. An empty text is no prompt.
    """
    plain = {key: text for key, text in measured.items() if INSTRUCTION not in text}
    query = next((plain[key] for key in ("query", *SEARCHES) if key in plain), "")
    named = {"query": query, "document": "", **own, **plain}
    for key in plain:
        if key not in SIDES and not key.endswith(tuple(f"-{side}" for side in SIDES)):
            # mteb would put the prompt of a task before its documents, too, which the evaluation does not.
            named.setdefault(f"{key}-document", "")
    for task in (part for whole in tasks for part in whole.scored_parts()):
        for side in (task.kind or TaskKind).prompt_sides(task.task).values():
            wanted = EncodeRequest(task.task.metadata, side).choose(measured) or ""
            if _found(named, task.task.metadata, side) != wanted:
                named[task.name if side is None else f"{task.name}-{side.value}"] = wanted
    return named


def _found(prompts: Prompts, task: Any, side: PromptType | None) -> str:
    """The prompt that mteb takes from a model with these."""
    return prompts.get(get_prompt_name(dict(prompts), task, side) or "", "")
