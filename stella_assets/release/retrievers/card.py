"""The model card of a retriever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from stella_assets.core.markup import markdown_table
from stella_assets.core.step import Artefact
from stella_assets.core.templates import render
from stella_assets.evaluation.model_scores import ModelScores
from stella_assets.evaluation.ranking.comparison import RetrievalSummary
from stella_assets.evaluation.render.retrieval import retrieval_findings, retrieval_rows
from stella_assets.release.card import hub_datasets, training_datasets
from stella_assets.release.licences import obligations
from stella_assets.release.retrievers.inputs import RetrieverReleaseInputs
from stella_assets.release.verdicts import Verdict


@dataclass(frozen=True)
class RetrieverFigures:
    """What a card tells of the retriever that was made.

    Attributes:
        parameters: How many it has.
        lists: Lists of candidates that it learned from.
        summary: How it and the dense models rank; None where no task ranks documents.
        scores: mteb's.
        verdicts: Of the gate.
        licences: How many texts of the corpus have each licence.
        lineage: The artefacts that it is made of.
    """

    parameters: int
    lists: int
    summary: RetrievalSummary | None
    scores: ModelScores
    verdicts: Sequence[Verdict]
    licences: Sequence[tuple[str, int]]
    lineage: Sequence[Artefact]


def retriever_card(recipe: str, inputs: RetrieverReleaseInputs, figures: RetrieverFigures) -> str:
    """The card in Markdown, with the front matter of the hub. It has no times: it is part of the release's digest.

    Args:
        recipe: Name of the recipe.
        inputs: What the release is made of.
        figures: What it came to.
    """
    settings = inputs.settings
    terms = [[name, stated.distribution, stated.url, str(stated.read_on)] for name, stated in inputs.terms.items()]
    lineage = [[made.name, made.digest[:12], made.manifest.identity.code_version] for made in figures.lineage]
    teachers = [[each.name, each.kind, each.licence, obligations(each.licence)] for each in inputs.teachers]
    ranked = figures.summary
    return render(
        __package__,
        "retriever_card.md.j2",
        name=f"{recipe}, {settings.name}",
        front_matter=_front_matter(recipe, inputs, figures),
        description=inputs.description,
        trained=settings.describe(),
        parameters=figures.parameters,
        lists=figures.lists,
        release=inputs.release,
        code=settings.how_to_score(),
        reranks=settings.reranks,
        findings=list(retrieval_findings(ranked)) if ranked else [],
        score_table=markdown_table(*retrieval_rows(ranked)) if ranked else "",
        verdicts=[str(verdict) for verdict in figures.verdicts],
        teacher_table=markdown_table(["teacher", "kind", "licence", "its licence asks"], teachers),
        terms=terms,
        terms_table=markdown_table(["learned from", "distribution", "terms of its provider", "read on"], terms),
        licence_table=markdown_table(["licence of the text", "texts"], figures.licences),
        training_datasets=training_datasets(inputs.sources, inputs.teachers),
        recipe=recipe,
        recipe_digest=inputs.recipe_digest,
        lineage_table=markdown_table(["artefact", "digest", "code version"], lineage),
    )


def _front_matter(recipe: str, inputs: RetrieverReleaseInputs, figures: RetrieverFigures) -> str:
    """What the hub reads of a card, as YAML."""
    results = [
        {
            "task": {"type": row["type"]},
            "dataset": {
                "name": row["task"],
                "type": f"mteb/{row['task']}" if row["data"] == "hub" else row["task"],
                "revision": row["revision"],
            },
            "metrics": [{"type": row["metric"], "value": round(100 * row["score"], 3)}],
        }
        for row in figures.scores.rows().to_dicts()
    ]
    datasets = hub_datasets(inputs.sources)
    described = {
        "library_name": "sentence-transformers",
        "pipeline_tag": inputs.settings.pipeline_tag,
        "license": inputs.release.licence.lower(),
        "tags": [
            *["sentence-transformers", *inputs.settings.tags, "distillation", "mteb"],
            *(["internal"] if inputs.release.distribution == "internal" else []),
        ],
        **({"datasets": datasets} if datasets else {}),
        "model-index": [{"name": f"{recipe}-{inputs.settings.name}", "results": results}],
    }
    return yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=1000)
