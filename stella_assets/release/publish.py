"""The release: the last stage's student as a SentenceTransformers folder and as ONNX, with its card and its lineage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stella_assets.core.errors import UserError
from stella_assets.core.manifest import Check
from stella_assets.core.present import Markdown, Rows, Shown
from stella_assets.core.step import Artefact, BuildContext, CheckSpec, Presentation, Result, Step
from stella_assets.core.trace import Tracer
from stella_assets.evaluation.held_out import probe_texts
from stella_assets.release.card import CardFigures, model_card, model_meta, without_front_matter
from stella_assets.release.inputs import ReleaseInputs
from stella_assets.release.loaders import AGREEMENT, DRIFTED, INT8, agreement, compare_loaders, require_same
from stella_assets.release.tables import RELEASED_VECTORS
from stella_assets.storage.tables import write_table
from stella_assets.teachers.kinds.base import TeacherConfig

RELEASE = "release"
CODE_VERSION = "8"
DRIFT_FILE = "vectors.parquet"
LINEAGE_FILE = "lineage.json"
CARD_FILE = "README.md"
META_FILE = "model_meta.json"


class DimensionError(UserError):
    """The recipe releases a dimension that no head has."""


def release_step(recipe: str, *, inputs: ReleaseInputs) -> Step[Path]:
    """The step that makes `release`, a model folder.

    Args:
        recipe: Name of the recipe.
        inputs: What it is made of.

    Returns:
        A step whose artefact reads as the model folder.
    """
    return Step(
        recipe=recipe,
        name=RELEASE,
        code_version=CODE_VERSION,
        settings={
            # Without the gate: another threshold does not change the files.
            "release": inputs.settings.settings("gate"),
            "prompts": dict(inputs.student.prompts),
            "measured_prompts": dict(inputs.prompts),
            "teachers": [
                {"name": t.name, "licence": t.licence, "weight": t.weight, **_stated(t)} for t in inputs.teachers
            ],
        },
        dependencies=(
            inputs.corpus,
            *inputs.vectors.values(),
            inputs.concatenation,
            inputs.tasks,
            *inputs.stages,
            inputs.report,
        ),
        # Its verdicts decide whether there is a release, not what is in it.
        order_after=(inputs.gate,),
        build=lambda context: _publish(recipe, inputs, context),
        read=lambda artefact, _workspace: artefact.folder,
        presentation=Presentation(
            group="release",
            kinds=frozenset({"huggingface"}),
            description="The student as a [SentenceTransformers](https://sbert.net) folder: prompts, every head, a "
            "model card, its lineage.",
            checks=(
                CheckSpec(
                    AGREEMENT,
                    "sentence-transformers at every dimension, transformers with the head, and ONNX Runtime, in a "
                    "clean process: cosine 0.99999 with what was scored.",
                ),
                CheckSpec("int8_drifts_little", "ONNX with int8 weights gives nearly the same vectors."),
            ),
            show=_show,
        ),
    )


def _stated(teacher: TeacherConfig) -> dict[str, Any]:
    """The terms of a teacher, which the card states; nothing where it has none."""
    terms = teacher.stated_terms()
    return {"terms": terms.settings()} if terms else {}


def _show(artefact: Artefact) -> Mapping[str, Shown]:
    card = (artefact.folder / CARD_FILE).read_text(encoding="utf-8")
    loaders = pq.read_table(artefact.folder / DRIFT_FILE).to_pylist()
    return {"loaders": Rows(loaders), "model_card": Markdown(without_front_matter(card))}


def _publish(recipe: str, inputs: ReleaseInputs, context: BuildContext) -> Result:
    from stella_assets.evaluation.prompts import published_prompts

    student = context.read(inputs.stages[-1]).load(context.compute)
    dims, chosen = list(student.dimensions.values()), inputs.settings.dimension
    if chosen not in dims:
        raise DimensionError(
            f"release.dimension {chosen}: the student has heads of {', '.join(map(str, dims))} dimensions.",
            "Name one of these, or add it to student.matryoshka_dims.",
        )
    prompts = published_prompts(inputs.student.prompts, inputs.prompts, context.read(inputs.tasks).open())
    student.save(context.folder, student.head_of(chosen), prompts)
    write_lineage(context)
    # Loaders compute in float32, so the student must not be compared in bfloat16 autocast.
    student.dtype = "float32"
    if inputs.settings.onnx:
        from stella_assets.release.onnx import export_onnx

        context.log.info(f"release: exporting {chosen} dimensions as ONNX, in float32 and with int8 weights")
        export_onnx(student, chosen, context.folder)
    # The clean process runs the model's code only if the recipe trusts it.
    texts, trust = probe_texts(context.read(inputs.corpus)), inputs.student.trust_remote_code
    loaders = compare_loaders(student, context.folder, texts, prompts, context.scratch, trust=trust)
    # A broken folder must not exist as an artefact: the build fails, and a check would only report.
    require_same(RELEASE, loaders)
    write_table(context.folder / DRIFT_FILE, RELEASED_VECTORS, loaders)
    summary = context.read(inputs.report).summary
    figures = CardFigures(
        dims=dims,
        parameters=sum(p.numel() for p in student.parameters()),
        loaders=loaders,
        summary=summary,
        licences=context.read(inputs.corpus).licence_counts(),
        layout=context.read(inputs.concatenation).layout,
        teacher_dims={name: context.artefact(step).manifest.metrics["dim"] for name, step in inputs.vectors.items()},
        lineage=list(context.inputs.values()),
        costs={
            name: cost
            for name, step in inputs.vectors.items()
            if (cost := context.artefact(step).manifest.metrics.get("cost"))
        },
    )
    (context.folder / CARD_FILE).write_text(model_card(recipe, inputs, figures), encoding="utf-8")
    (context.folder / META_FILE).write_text(model_meta(recipe, inputs, student), encoding="utf-8")
    return _result(inputs, context.folder, figures)


def write_lineage(context: BuildContext) -> None:
    """Write the identities of everything that the release depends on."""
    lineage = Tracer(context.workspace).join(made.folder for made in context.inputs.values()).identities()
    # Identities only: paths and times differ between machines.
    text = json.dumps(lineage, indent=1, sort_keys=True) + "\n"
    (context.folder / LINEAGE_FILE).write_text(text, encoding="utf-8")


def _result(inputs: ReleaseInputs, folder: Path, figures: CardFigures) -> Result:
    int8 = next((row for row in figures.loaders if row["loader"] == INT8), None)
    return Result(
        metrics={
            "dimensions": list(figures.dims),
            "parameters": figures.parameters,
            "default_dimension": inputs.settings.dimension,
            "megabytes": round(sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6, 1),
            "licence": inputs.settings.licence,
            "mean_score": round(100 * figures.summary.student.mean, 2),
            **({"int8_cosine": round(int8["mean_cosine"], 5)} if int8 else {}),
        },
        checks=(
            agreement(figures.loaders),
            Check(
                "int8_drifts_little",
                int8 is None or int8["mean_cosine"] >= DRIFTED,
                f"mean cosine {int8['mean_cosine']:.4f}, minimum {int8['least_cosine']:.4f}"
                if int8
                else "the recipe asks for no ONNX",
                {"mean_cosine": int8["mean_cosine"]} if int8 else {},
            ),
        ),
        unhashed_files=(DRIFT_FILE,),
    )
