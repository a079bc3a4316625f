"""What goes with a release to be read: the model card, and what mteb wants to know of a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from stella_assets.core.markup import markdown_table
from stella_assets.core.progress import money
from stella_assets.core.step import Artefact
from stella_assets.core.templates import render
from stella_assets.corpus.sources.base import SourceConfig
from stella_assets.evaluation.render import tables
from stella_assets.evaluation.summary import Summary
from stella_assets.release.inputs import ReleaseInputs
from stella_assets.release.licences import obligations
from stella_assets.release.settings import ReleaseSettings
from stella_assets.students import DenseConfig
from stella_assets.teachers.kinds.base import TeacherConfig
from stella_assets.teachers.snapshot import Layout

if TYPE_CHECKING:
    from stella_assets.students.dense.model import DenseStudent


@dataclass(frozen=True)
class CardFigures:
    """What a model card tells of the student that was made.

    Attributes:
        dims: Dimensions of its heads.
        parameters: How many it has.
        loaders: Rows of `RELEASED_VECTORS`.
        summary: Of the evaluation.
        licences: How many texts of the corpus have each licence.
        layout: How the teachers were joined.
        teacher_dims: Dimensions of each teacher's vectors, by name.
        lineage: The artefacts that the release is made of.
        costs: What the vectors of each paid teacher have cost, by name.
    """

    dims: Sequence[int]
    parameters: int
    loaders: Sequence[Mapping[str, Any]]
    summary: Summary
    licences: Sequence[tuple[str, int]]
    layout: Layout
    teacher_dims: Mapping[str, int]
    lineage: Sequence[Artefact]
    costs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def model_card(recipe: str, inputs: ReleaseInputs, figures: CardFigures) -> str:
    """The card in Markdown, with the front matter of the hub. It has no times: it is part of the release's digest.

    Args:
        recipe: Name of the recipe.
        inputs: What the release is made of.
        figures: What it came to.
    """
    summary = figures.summary
    loaders = [[row["loader"], row["dimension"], f"{row['mean_cosine']:.4f}"] for row in figures.loaders]
    # Without times, which would change the digest of a release that is made again.
    lineage = [[a.name, a.digest[:12], a.manifest.identity.code_version] for a in figures.lineage]
    centred = {t.name: "no" if figures.layout.mean_of(t.name) is None else "yes" for t in inputs.teachers}
    teachers = [
        [t.name, t.kind, figures.teacher_dims[t.name], t.weight, centred[t.name], t.licence, obligations(t.licence)]
        for t in inputs.teachers
    ]
    asked = ["teacher", "kind", "dimensions", "weight", "centred", "licence", "its licence asks"]
    terms = [[t.name, s.distribution, s.url, str(s.read_on)] for t in inputs.teachers if (s := t.stated_terms())]
    believed = [[t.name, reason] for t in inputs.teachers if (reason := t.trust_reason())]
    return render(
        __package__,
        "model_card.md.j2",
        name=recipe,
        front_matter=_front_matter(recipe, inputs, summary),
        description=inputs.description,
        recipe_digest=inputs.recipe_digest,
        release=inputs.settings,
        use=how_to_use(inputs.student, inputs.settings, figures.dims),
        teachers=len(inputs.teachers),
        dims=figures.dims,
        parameters=figures.parameters,
        tasks=summary.tasks,
        decontaminated=[chosen.name for chosen in inputs.decontaminate.sets] if inputs.decontaminate else [],
        training_datasets=training_datasets(inputs.sources, inputs.teachers),
        licence_table=markdown_table(["licence of the text", "texts"], figures.licences),
        score_table=markdown_table(*tables.score_rows(summary)),
        retention_table=markdown_table(*tables.retention_rows(summary)),
        loader_table=markdown_table(["loader", "dimensions", "mean cosine"], loaders),
        teacher_table=markdown_table(asked, teachers),
        terms=terms,
        terms_table=markdown_table(["teacher", "distribution", "terms of its provider", "read on"], terms),
        believed_table=markdown_table(["teacher", "why its vectors are believed"], believed) if believed else "",
        lineage_table=markdown_table(["artefact", "digest", "code version"], lineage),
        cost_table=_cost_table(figures.costs),
    )


def _cost_table(costs: Mapping[str, Mapping[str, Any]]) -> str:
    """What services were paid for the vectors; empty where none was."""
    if not costs:
        return ""
    rows = [
        [name, f"{cost['texts']:,}", f"{cost['requests']:,}", f"{cost['tokens']:,}", _dollars(cost["dollars"])]
        for name, cost in costs.items()
    ]
    known = [cost["dollars"] for cost in costs.values()]
    total = None if None in known else sum(known)
    rows += [["together", "", "", f"{sum(cost['tokens'] for cost in costs.values()):,}", _dollars(total)]]
    return markdown_table(["teacher", "texts", "requests", "tokens", "dollars"], rows)


def _dollars(amount: float | None) -> str:
    return "unknown" if amount is None else money(amount)


def without_front_matter(card: str) -> str:
    """The part of a card that people read."""
    # No value of the front matter can begin a line with the mark: it would be indented.
    return card.partition("\n---\n")[2]


def _front_matter(recipe: str, inputs: ReleaseInputs, summary: Summary) -> str:
    """What the hub reads of a card, as YAML."""
    released = summary.model(inputs.stages[-1].name, inputs.settings.dimension)
    results = [
        {
            "task": {"type": task.type},
            "dataset": {
                "name": task.task,
                "type": f"mteb/{task.task}" if task.data == "hub" else task.task,
                "revision": task.revision,
            },
            "metrics": [{"type": task.metric, "value": round(100 * released.scores[task.task], 3)}],
        }
        for task in summary.tasks
    ]
    datasets = hub_datasets(inputs.sources)
    described = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "license": inputs.settings.licence.lower(),
        "tags": [
            *["sentence-transformers", "feature-extraction", "distillation", "matryoshka", "mteb"],
            *(["internal"] if inputs.settings.distribution == "internal" else []),
        ],
        **({"datasets": datasets} if datasets else {}),
        "model-index": [{"name": recipe, "results": results}],
    }
    # By a writer of YAML: licences, revisions and names of tasks are data, and `1e5` would be a number.
    return yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=1000)


def how_to_use(student: DenseConfig, settings: ReleaseSettings, dims: Sequence[int]) -> str:
    """The part of the card that shows how the folder is loaded, as code that can be pasted.

    Args:
        student: Settings of the student.
        settings: What is published.
        dims: Dimensions of its heads.
    """
    from stella_assets.students.dense.heads import INNER_FOLDER, OUTER_FOLDER

    layers = [INNER_FOLDER, OUTER_FOLDER] if student.head_hidden else [INNER_FOLDER]
    return render(
        __package__,
        "model_use.md.j2",
        trust=", trust_remote_code=True" if student.trust_remote_code else "",
        # As Python writes them, since spaces at the end count.
        prompts={name: json.dumps(prompt, ensure_ascii=False) for name, prompt in student.prompts.items()},
        release=settings,
        other=next((dim for dim in dims if dim != settings.dimension), None),
        # Transformer and Pooling come before them.
        folders=dict(enumerate(layers, 2)),
    ).strip()


def hub_datasets(sources: Sequence[SourceConfig]) -> list[str]:
    """The data sets of the Hugging Face hub that sources read."""
    return [name for source in sources for name in source.hub_datasets()]


def training_datasets(sources: Sequence[SourceConfig], teachers: Sequence[TeacherConfig]) -> list[str] | None:
    """mteb's tasks whose data the corpus or a teacher has seen; None where a teacher's are not known.

    They tell mteb on which tasks a model is zero-shot.

    Args:
        sources: Of the corpus.
        teachers: What a teacher has seen reaches the student through its vectors.

    Returns:
        Names of tasks, sorted.
    """
    import mteb

    found: set[str] = set()
    # Data sets are compared by their path on the hub; local copies of them cannot be recognised.
    if datasets := hub_datasets(sources):
        found |= {task.metadata.name for task in mteb.get_tasks() if task.metadata.dataset["path"] in datasets}
    for teacher in teachers:
        known = teacher.known_training_datasets()
        # mteb takes None as unknown; an incomplete list would claim tasks to be zero-shot that are not.
        if known is None:
            return None
        found |= known
    return sorted(found)


def model_meta(recipe: str, inputs: ReleaseInputs, student: DenseStudent) -> str:
    """What mteb wants to know of a model, in the format of its `model_meta.json`.

    Args:
        recipe: Name of the recipe.
        inputs: What the release is made of.
        student: That is released.

    Returns:
        JSON with sorted keys.
    """
    from mteb.models.model_meta import ModelMeta, ScoringFunction

    from stella_assets.students.dense.digests import encoder_digest

    known = training_datasets(inputs.sources, inputs.teachers)
    meta = ModelMeta.create_empty(
        {
            "name": f"stella/{recipe}",
            # A digest, since the folder has no commit of the hub.
            "revision": encoder_digest(student),
            "n_parameters": sum(p.numel() for p in student.parameters()),
            "max_tokens": student.backbone.max_seq_length,
            "embed_dim": inputs.settings.dimension,
            "license": inputs.settings.licence.lower(),
            "open_weights": True,
            "framework": ["Sentence Transformers", "PyTorch", "ONNX", "safetensors"],
            "similarity_fn_name": ScoringFunction.COSINE,
            "use_instructions": bool(inputs.student.prompts),
            "training_datasets": None if known is None else set(known),
            "adapted_from": inputs.student.model if inputs.student.on_hub else None,
        }
    )
    # Sorted, because the file is hashed; `default=str` writes dates and enumerations.
    return json.dumps(meta.to_dict(), indent=1, sort_keys=True, default=str) + "\n"
