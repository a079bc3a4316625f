"""The release: the last stage's student as a SentenceTransformers folder and as ONNX, with its card and its lineage."""

from __future__ import annotations

import json
from typing import Any

from stella_assets.core.manifest import Check
from stella_assets.core.step import BuildContext, Result, Step
from stella_assets.core.trace import Tracer
from stella_assets.corpus.build import corpus_step
from stella_assets.evaluation.held_out import probe_texts
from stella_assets.evaluation.report import read_summary, report_step
from stella_assets.evaluation.summary import at_full_dimension
from stella_assets.recipe import Recipe
from stella_assets.release.card import model_card, model_meta
from stella_assets.release.gate import gate_step
from stella_assets.release.reload import cosines, vectors_of_release
from stella_assets.teachers.concatenate import concatenation_step
from stella_assets.teachers.encode import teacher_step
from stella_assets.training.stages import model_folder, stage_step
from storage.statistics import RELEASED_VECTORS, write_table

CODE_VERSION = "4"
DRIFT_FILE = "vectors.parquet"
COMPARED_TEXTS = 32
SAME = 0.99999
"""Least cosine of a vector that a loader gives with the one that was scored, both in float32."""
DRIFTED = 0.97
"""Least mean cosine of vectors of int8 weights."""


class DimensionError(ValueError):
    """The recipe releases a dimension that no head has."""


class LoaderError(ValueError):
    """The files give other vectors, in a clean process, than those that were scored."""


def release_step(recipe: Recipe) -> Step:
    """The step that makes `release`."""
    stages = tuple(stage_step(recipe, number) for number in range(1, len(recipe.stages) + 1))
    teachers = tuple(teacher_step(recipe, teacher) for teacher in recipe.teachers)
    return Step(
        recipe=recipe.name,
        name="release",
        code_version=CODE_VERSION,
        settings={
            "release": recipe.release.settings("gate"),
            "prompts": recipe.student.prompts,
            "teachers": [{"name": t.name, "licence": t.licence, "weight": t.weight} for t in recipe.teachers],
        },
        needs=(corpus_step(recipe), *teachers, concatenation_step(recipe), *stages, report_step(recipe)),
        after=(gate_step(recipe),),
        build=lambda context: _publish(recipe, context),
    )


def _publish(recipe: Recipe, context: BuildContext) -> Result:
    from stella_assets.release.onnx import export_onnx
    from stella_assets.students.dense import Student

    student = Student.load(model_folder(context.inputs[f"stage_{len(recipe.stages)}"]), recipe.student)
    dims, chosen = list(student.dims), recipe.release.dimension
    if chosen not in dims:
        raise DimensionError(
            f"release.dimension {chosen}: the student has heads of {', '.join(map(str, dims))} dimensions. Name one "
            "of these, or add it to student.matryoshka_dims."
        )
    student.save(context.folder, chosen, recipe.student.prompts)
    tracer = Tracer(context.workspace)
    nodes = [tracer.of_folder(artefact.folder) for artefact in context.inputs.values()]
    lineage = {name: about for node in nodes for name, about in node.identities().items()}
    (context.folder / "lineage.json").write_text(json.dumps(lineage, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    student.dtype = "float32"
    if recipe.release.onnx:
        context.log.info(f"release: exporting {chosen} dimensions as ONNX, in float32 and with int8 weights")
        export_onnx(student, chosen, context.folder)
    drift = _compare_loaders(recipe, student, context)
    worst = min((row for row in drift if row["loader"] != "onnx_int8"), key=lambda row: row["least_cosine"])
    if worst["least_cosine"] < SAME:
        raise LoaderError(
            f"release: {worst['loader']} gives other vectors of {worst['dimension']} dimensions than were scored, "
            f"with a cosine of {worst['least_cosine']:.6f} at least, not {SAME}. Nothing was released; look at the "
            "student's architecture and pooling."
        )
    write_table(context.folder / DRIFT_FILE, RELEASED_VECTORS, drift)
    summary = read_summary(context.inputs["evaluation_report"])
    parameters = sum(p.numel() for p in student.parameters())
    scored = at_full_dimension(summary["models"])[f"stage_{len(recipe.stages)}"]
    about = {"dims": dims, "parameters": parameters, "loaders": drift}
    (context.folder / "README.md").write_text(model_card(recipe, context.inputs, summary, about), encoding="utf-8")
    (context.folder / "model_meta.json").write_text(model_meta(recipe, student), encoding="utf-8")
    int8 = next((row for row in drift if row["loader"] == "onnx_int8"), None)
    return Result(
        metrics={
            "dimensions": dims,
            "default_dimension": chosen,
            "parameters": parameters,
            "megabytes": round(sum(f.stat().st_size for f in context.folder.rglob("*") if f.is_file()) / 1e6, 1),
            "licence": recipe.release.licence,
            "mean_score": round(100 * scored["mean"], 2),
            **({"int8_cosine": round(int8["mean_cosine"], 5)} if int8 else {}),
        },
        checks=(
            Check(
                "every_loader_gives_the_same_vectors",
                True,  # else there were no release
                f"least cosine {worst['least_cosine']:.6f}, of {worst['loader']} at {worst['dimension']} dimensions",
                {"least_cosine": worst["least_cosine"]},
            ),
            Check(
                "int8_drifts_little",
                int8 is None or int8["mean_cosine"] >= DRIFTED,
                f"cosine {int8['mean_cosine']:.4f} in the mean, {int8['least_cosine']:.4f} at least"
                if int8
                else "the recipe asks for no ONNX",
                {"mean_cosine": int8["mean_cosine"]} if int8 else {},
            ),
        ),
        unhashed_files=(DRIFT_FILE,),
    )


def _compare_loaders(recipe: Recipe, student: Any, context: BuildContext) -> list[dict[str, Any]]:
    """Cosines of what a clean process gets from the files with what the student gives, both in float32."""
    import torch

    texts = probe_texts(context.inputs["corpus"])[:COMPARED_TEXTS]
    prompts = list(recipe.student.prompts.values())
    texts += [prompt + text for prompt in prompts for text in texts[:8]]
    trusted = recipe.student.trust_remote_code
    loaded = vectors_of_release(context.folder, texts, context.scratch, trust_remote_code=trusted)
    pooled_BH = torch.from_numpy(student.encode_pooled(texts)).to(student.device)
    rows = []
    for name, vectors in loaded.items():
        loader, _, dim = name.rpartition("_")
        found = cosines(vectors, student.project(pooled_BH, int(dim)).detach().cpu().numpy())
        least, mean = float(found.min()), float(found.mean())
        of_texts = {"texts": len(texts), "least_cosine": least, "mean_cosine": mean}
        rows.append({"loader": loader, "dimension": int(dim), **of_texts})
    return rows
