"""The release: the last stage's student as a SentenceTransformers folder and as ONNX, with its card and its lineage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from stella_assets.core.errors import UserError
from stella_assets.core.manifest import Check
from stella_assets.core.present import Markdown, Rows, Shown
from stella_assets.core.step import Artefact, BuildContext, CheckSpec, Presentation, Result, Step
from stella_assets.core.trace import Tracer
from stella_assets.evaluation.held_out import probe_texts
from stella_assets.release.card import CardFigures, model_card, model_meta
from stella_assets.release.inputs import ReleaseInputs
from stella_assets.release.reload import cosines, vectors_of_release
from stella_assets.release.tables import RELEASED_VECTORS
from storage.tables import write_table

if TYPE_CHECKING:
    from stella_assets.students.dense.model import DenseStudent

RELEASE = "release"
CODE_VERSION = "6"
DRIFT_FILE = "vectors.parquet"
LINEAGE_FILE = "lineage.json"
CARD_FILE = "README.md"
META_FILE = "model_meta.json"
# A clean process loads every head on the processor; more texts find no other faults.
COMPARED_TEXTS = 32
PROMPTED_TEXTS = 8
"""Of these, how many are also compared with each prompt in front."""
# Float32 on another device or library moves the sixth digit; another pooling or head moves the first.
SAME = 0.99999
"""Minimum cosine of a vector that a loader gives with the one that was scored, both in float32."""
DRIFTED = 0.97
"""Minimum mean cosine of vectors of int8 weights."""
INT8 = "onnx_int8"


class DimensionError(UserError):
    """The recipe releases a dimension that no head has."""


class LoaderError(UserError):
    """In a clean process, the files give other vectors than those that were scored."""


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
            "teachers": [{"name": t.name, "licence": t.licence, "weight": t.weight} for t in inputs.teachers],
        },
        dependencies=(
            inputs.corpus,
            *inputs.vectors.values(),
            inputs.concatenation,
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
                    "every_loader_gives_the_same_vectors",
                    "sentence-transformers at every dimension, transformers with the head, and ONNX Runtime, in a "
                    "clean process: cosine 0.99999 with what was scored.",
                ),
                CheckSpec("int8_drifts_little", "ONNX with int8 weights gives nearly the same vectors."),
            ),
            show=_show,
        ),
    )


def _show(artefact: Artefact) -> Mapping[str, Shown]:
    card = (artefact.folder / CARD_FILE).read_text(encoding="utf-8")
    loaders = pq.read_table(artefact.folder / DRIFT_FILE).to_pylist()
    return {"loaders": Rows(loaders), "model_card": Markdown(card.split("---\n", 2)[-1])}


def _publish(recipe: str, inputs: ReleaseInputs, context: BuildContext) -> Result:
    student = context.read(inputs.stages[-1]).load(context.compute)
    dims, chosen = list(student.dimensions.values()), inputs.settings.dimension
    if chosen not in dims:
        raise DimensionError(
            f"release.dimension {chosen}: the student has heads of {', '.join(map(str, dims))} dimensions.",
            "Name one of these, or add it to student.matryoshka_dims.",
        )
    student.save(context.folder, student.head_of(chosen), inputs.student.prompts)
    _write_lineage(context)
    # Loaders compute in float32, so the student must not be compared in bfloat16 autocast.
    student.dtype = "float32"
    if inputs.settings.onnx:
        from stella_assets.release.onnx import export_onnx

        context.log.info(f"release: exporting {chosen} dimensions as ONNX, in float32 and with int8 weights")
        export_onnx(student, chosen, context.folder)
    loaders = _compare_loaders(inputs, student, context)
    # A broken folder must not exist as an artefact: the build fails, and a check would only report.
    _require_same(loaders)
    write_table(context.folder / DRIFT_FILE, RELEASED_VECTORS, loaders)
    summary = context.read(inputs.report).summary
    figures = CardFigures(
        dims=dims,
        parameters=sum(p.numel() for p in student.parameters()),
        loaders=loaders,
        summary=summary,
        licences=context.read(inputs.corpus).licence_counts(),
        teacher_dims={name: context.artefact(step).manifest.metrics["dim"] for name, step in inputs.vectors.items()},
        lineage=list(context.inputs.values()),
    )
    (context.folder / CARD_FILE).write_text(model_card(recipe, inputs, figures), encoding="utf-8")
    (context.folder / META_FILE).write_text(model_meta(recipe, inputs, student), encoding="utf-8")
    return _result(inputs, context.folder, figures)


def _write_lineage(context: BuildContext) -> None:
    """Write the identities of everything that the release depends on."""
    lineage = Tracer(context.workspace).join(made.folder for made in context.inputs.values()).identities()
    # Identities only: paths and times differ between machines.
    text = json.dumps(lineage, indent=1, sort_keys=True) + "\n"
    (context.folder / LINEAGE_FILE).write_text(text, encoding="utf-8")


def _compare_loaders(inputs: ReleaseInputs, student: DenseStudent, context: BuildContext) -> list[dict[str, Any]]:
    """Cosines of what a clean process gets from the files with what the student gives, both in float32."""
    import torch

    texts = probe_texts(context.read(inputs.corpus))[:COMPARED_TEXTS]
    texts += [prompt + text for prompt in inputs.student.prompts.values() for text in texts[:PROMPTED_TEXTS]]
    # The clean process runs the model's code only if the recipe trusts it.
    trusted = inputs.student.trust_remote_code
    loaded = vectors_of_release(context.folder, texts, context.scratch, trust_remote_code=trusted)
    pooled_BH = torch.from_numpy(student.encode_pooled(texts)).to(student.device)
    rows = []
    for name, vectors in loaded.items():
        loader, _, dim = name.rpartition("_")
        found = cosines(vectors, student.project(pooled_BH, student.head_of(int(dim))).detach().cpu().numpy())
        least, mean = float(found.min()), float(found.mean())
        of_texts = {"texts": len(texts), "least_cosine": least, "mean_cosine": mean}
        rows.append({"loader": loader, "dimension": int(dim), **of_texts})
    return rows


def _worst(loaders: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The loader that is furthest from what was scored; int8 weights are expected to differ."""
    return min((row for row in loaders if row["loader"] != INT8), key=lambda row: row["least_cosine"])


def _require_same(loaders: Sequence[Mapping[str, Any]]) -> None:
    worst = _worst(loaders)
    if worst["least_cosine"] < SAME:
        raise LoaderError(
            f"release: {worst['loader']} gives other vectors of {worst['dimension']} dimensions than were scored, with "
            f"a minimum cosine of {worst['least_cosine']:.6f}, not {SAME}. Nothing was released.",
            "Look at the student's architecture and pooling.",
        )


def _result(inputs: ReleaseInputs, folder: Path, figures: CardFigures) -> Result:
    worst = _worst(figures.loaders)
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
            Check(
                "every_loader_gives_the_same_vectors",
                True,  # otherwise nothing is released
                f"minimum cosine {worst['least_cosine']:.6f}, of {worst['loader']} at {worst['dimension']} dimensions",
                {"least_cosine": worst["least_cosine"]},
            ),
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
