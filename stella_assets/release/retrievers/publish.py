"""The steps `retriever_release/<name>`: the folder of a retriever to publish, with its card and its lineage."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stella_assets.core.manifest import Check
from stella_assets.core.present import Markdown, Shown
from stella_assets.core.step import Artefact, BuildContext, CheckSpec, Presentation, Result, Step
from stella_assets.evaluation.held_out import probe_texts
from stella_assets.evaluation.ranking.steps import retriever_model
from stella_assets.release.card import without_front_matter
from stella_assets.release.publish import CARD_FILE, write_lineage
from stella_assets.release.retrievers.gate import judge_retriever, require_open
from stella_assets.release.retrievers.inputs import RetrieverReleaseInputs
from stella_assets.release.retrievers.run_code import CardCodeError, scores_of_code
from stella_assets.release.verdicts import judge_terms

if TYPE_CHECKING:
    from stella_assets.students.retriever import Retriever

FAMILY = "retriever_release"
CODE_VERSION = "1"
COMPARED_TEXTS = 8
"""Queries, and documents of each, that the code of the card scores."""
# Float32 in batches of other sizes moves the sixth digit; another length, marker or head moves the first.
SAME = 1e-4
SAME_SCORES = CheckSpec("the_code_of_the_card_gives_the_same_scores", "In a clean process, on texts of the corpus.")


def retriever_release_step(recipe: str, *, inputs: RetrieverReleaseInputs) -> Step[Path]:
    """The step that makes `retriever_release/<name>`, a folder that sentence-transformers loads.

    Args:
        recipe: Name of the recipe.
        inputs: What it is made of.

    Returns:
        A step whose artefact reads as the model folder.
    """
    settings = inputs.settings
    return Step(
        recipe=recipe,
        name=f"{FAMILY}/{settings.name}",
        code_version=CODE_VERSION,
        settings={
            "release": {"licence": inputs.release.licence, "distribution": inputs.release.distribution},
            # Another threshold may stop the release, so it is part of it.
            "min_gain": dict(settings.min_gain),
            "teachers": [{"name": each.name, "licence": each.licence} for each in inputs.teachers],
            "terms": {name: stated.settings() for name, stated in inputs.terms.items()},
        },
        dependencies=(inputs.corpus, inputs.tasks, inputs.retriever, inputs.dense, inputs.scores),
        build=partial(_publish, recipe, inputs),
        read=lambda artefact, _workspace: artefact.folder,
        presentation=Presentation(
            group="release",
            kinds=frozenset({"huggingface"}),
            description=f"`{retriever_model(settings.name)}` as a [SentenceTransformers](https://sbert.net) folder, "
            "with a model card and its lineage.",
            checks=(SAME_SCORES,),
            show=_show,
        ),
    )


def _show(artefact: Artefact) -> Mapping[str, Shown]:
    return {"model_card": Markdown(without_front_matter((artefact.folder / CARD_FILE).read_text(encoding="utf-8")))}


def _publish(recipe: str, inputs: RetrieverReleaseInputs, context: BuildContext) -> Result:
    from stella_assets.evaluation.ranking.comparison import compare_rankers
    from stella_assets.release.retrievers.card import RetrieverFigures, retriever_card

    settings, scores = inputs.settings, context.read(inputs.scores)
    types = {row["task"]: row["type"] for row in context.read(inputs.tasks).rows()}
    summary = compare_rankers(context.read(inputs.dense), [scores], types)
    verdicts = [*judge_terms(inputs.release.distribution, inputs.terms), *judge_retriever(settings, summary)]
    for verdict in verdicts:
        context.log.info(f"gate {'open' if verdict.passed else 'CLOSED'}: {verdict}")
    # Before anything is written: what may not be released must not exist as an artefact.
    require_open(settings.name, verdicts)
    saved = context.read(inputs.retriever)
    shutil.copytree(saved.folder, context.folder, dirs_exist_ok=True)
    retriever = saved.load(context.compute)
    texts = probe_texts(context.read(inputs.corpus))[: 2 * COMPARED_TEXTS]
    difference = _compare_code(settings.how_to_score(), retriever, texts, context)
    write_lineage(context)
    trained = context.artefact(inputs.retriever).manifest.metrics
    figures = RetrieverFigures(
        parameters=trained["parameters"],
        lists=trained["lists_train"],
        summary=summary,
        scores=scores,
        verdicts=verdicts,
        licences=context.read(inputs.corpus).licence_counts(),
        lineage=list(context.inputs.values()),
    )
    (context.folder / CARD_FILE).write_text(retriever_card(recipe, inputs, figures), encoding="utf-8")
    gains = {each.type: each.ndcg_gain.value for each in summary.of_model(retriever_model(settings.name))
             if each.ndcg_gain} if summary else {}  # fmt: skip
    return Result(
        metrics={
            "parameters": figures.parameters,
            "licence": inputs.release.licence,
            "megabytes": round(sum(f.stat().st_size for f in context.folder.rglob("*") if f.is_file()) / 1e6, 1),
            **{f"ndcg_gain of {kind}": gain for kind, gain in gains.items()},
        },
        checks=(Check(SAME_SCORES.name, True, f"largest difference {difference:.2g}", {"difference": difference}),),
    )


def _compare_code(code: str, retriever: Retriever, texts: list[str], context: BuildContext) -> float:
    """The largest difference of a score that the card's code gives, in a clean process, to the retriever's own."""
    queries, documents = texts[:COMPARED_TEXTS], texts[COMPARED_TEXTS:] or texts
    found = scores_of_code(code, context.folder, queries, documents, context.scratch)
    pairs = [(query, document) for query in queries for document in documents]
    own = retriever.score_pairs([query for query, _ in pairs], [document for _, document in pairs])
    expected = own.reshape(len(queries), len(documents))
    difference = float(np.abs(found - expected).max())
    if not difference <= SAME * max(1.0, float(np.abs(expected).max())):  # NaN is refused, too
        raise CardCodeError(
            f"{FAMILY}: the code of the card gives other scores than the retriever; they differ by {difference:.4g}.",
            "Look at the model's architecture and at the versions of the installed libraries.",
        )
    return difference
