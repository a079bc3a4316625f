"""What goes with a release to be read: the model card, and what mteb wants to know of a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from stella_assets.core.step import Artefact
from stella_assets.corpus.build import licence_counts
from stella_assets.evaluation import tables
from stella_assets.recipe import HuggingFace, LsaTeacher, Recipe
from stella_assets.release.licences import obligations


def model_card(
    recipe: Recipe, inputs: Mapping[str, Artefact], summary: Mapping[str, Any], about: Mapping[str, Any]
) -> str:
    """The card in Markdown, with the front matter of the hub. No times: it is part of the release's digest.

    Args:
        recipe: What is released.
        inputs: The artefacts that the release is made of.
        summary: Of the evaluation.
        about: `dims`, `parameters`, and `loaders`: rows of `RELEASED_VECTORS`.
    """
    from jinja2 import Environment, PackageLoader

    last, dimension = f"stage_{len(recipe.stages)}", recipe.release.dimension
    released = next(m for m in summary["models"] if (m["name"], m["dimension"]) == (last, dimension))
    loaders = [[row["loader"], row["dimension"], f"{row['mean_cosine']:.4f}"] for row in about["loaders"]]
    lineage = [[name, a.digest[:12], a.manifest.identity.code_version] for name, a in inputs.items()]
    teachers = [_teacher_row(teacher, inputs[f"teacher_vectors/{teacher.name}"]) for teacher in recipe.teachers]
    asked = ["teacher", "kind", "dimensions", "weight", "licence", "its licence asks"]
    templates = Environment(loader=PackageLoader("stella_assets.release"), trim_blocks=True, autoescape=False)  # noqa: S701 (Markdown)
    return templates.get_template("model_card.md.j2").render(
        recipe=recipe,
        dims=about["dims"],
        parameters=about["parameters"],
        released=released,
        tasks=summary["tasks"],
        datasets=_datasets(recipe),
        training_datasets=training_datasets(recipe),
        licence_table=tables.markdown_table(["licence of the text", "texts"], licence_counts(inputs["corpus"])),
        score_table=tables.markdown_table(*tables.score_rows(summary)),
        retention_table=tables.markdown_table(*tables.retention_rows(summary)),
        loader_table=tables.markdown_table(["loader", "dimensions", "mean cosine"], loaders),
        teacher_table=tables.markdown_table(asked, teachers),
        lineage_table=tables.markdown_table(["artefact", "digest", "code version"], lineage),
    )


def _teacher_row(teacher: Any, artefact: Artefact) -> Sequence[Any]:
    licence = teacher.licence
    return [teacher.name, teacher.kind, artefact.manifest.metrics["dim"], teacher.weight, licence, obligations(licence)]


def _datasets(recipe: Recipe) -> list[str]:
    return [source.dataset for source in recipe.corpus.sources if isinstance(source, HuggingFace)]


def training_datasets(recipe: Recipe) -> list[str] | None:
    """mteb's tasks whose data the corpus or a teacher has seen; None where a teacher's are not known.

    mteb tells by them on which tasks a model is zero-shot.
    """
    import mteb

    found: set[str] = set()
    if datasets := _datasets(recipe):
        found |= {task.metadata.name for task in mteb.get_tasks() if task.metadata.dataset["path"] in datasets}
    for teacher in recipe.teachers:
        if isinstance(teacher, LsaTeacher):  # it has seen the corpus alone
            continue
        try:
            known = mteb.get_model_meta(teacher.model, fetch_from_hf=False).get_training_datasets()
        except (KeyError, ValueError):
            known = None
        if known is None:
            return None
        found |= known
    return sorted(found)


def model_meta(recipe: Recipe, student: Any) -> str:
    """What mteb wants to know of a model, in the format of its `model_meta.json`."""
    from mteb.models.model_meta import ModelMeta, ScoringFunction

    known = training_datasets(recipe)
    meta = ModelMeta.create_empty(
        {
            "name": f"stella/{recipe.name}",
            "revision": student.encoder_digest(),
            "n_parameters": sum(p.numel() for p in student.parameters()),
            "max_tokens": student.backbone.max_seq_length,
            "embed_dim": recipe.release.dimension,
            "license": recipe.release.licence.lower(),
            "open_weights": True,
            "framework": ["Sentence Transformers", "PyTorch", "ONNX", "safetensors"],
            "similarity_fn_name": ScoringFunction.COSINE,
            "use_instructions": bool(recipe.student.prompts),
            "training_datasets": None if known is None else set(known),
            "adapted_from": recipe.student.model if recipe.student.on_hub else None,
        }
    )
    return json.dumps(meta.to_dict(), indent=1, sort_keys=True, default=str) + "\n"
