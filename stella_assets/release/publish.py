"""The release: the last stage's student as a SentenceTransformers folder, with its card and its lineage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stella_assets.corpus.build import corpus_step, licence_counts
from stella_assets.evaluation import tables
from stella_assets.evaluation.report import read_summary, report_step
from stella_assets.manifest import Check
from stella_assets.models import load_sentence_transformer
from stella_assets.recipe import Recipe
from stella_assets.step import Artefact, Result, Step, Workbench
from stella_assets.teachers.concatenate import concatenation_step
from stella_assets.teachers.encode import teacher_step
from stella_assets.training.stages import model_folder, stage_step

CODE_VERSION = "2"
PROBES = ("Return a sorted copy of an array.", "Open a network connection.", "how do I sort an array?")


class DimensionError(ValueError):
    """The recipe releases a dimension that no head has."""


def release_step(recipe: Recipe) -> Step:
    """The step that makes `release`."""
    stages = tuple(stage_step(recipe, number) for number in range(1, len(recipe.stages) + 1))
    teachers = tuple(teacher_step(recipe, teacher) for teacher in recipe.teachers)
    return Step(
        recipe=recipe.name,
        name="release",
        code_version=CODE_VERSION,
        settings={
            "release": recipe.release.settings(),
            "prompts": recipe.student.prompts,
            "teachers": [{"name": t.name, "licence": t.licence, "weight": t.weight} for t in recipe.teachers],
        },
        needs=(corpus_step(recipe), *teachers, concatenation_step(recipe), *stages, report_step(recipe)),
        build=lambda bench: _publish(recipe, bench),
    )


def _publish(recipe: Recipe, bench: Workbench) -> Result:
    import numpy as np

    from stella_assets.training.student import Student

    source = model_folder(bench.inputs[f"stage_{len(recipe.stages)}"])
    student = Student.load(source, recipe.student)
    dims = list(student.dims)
    if recipe.release.dimension not in dims:
        raise DimensionError(
            f"release.dimension {recipe.release.dimension}: the student has heads of {', '.join(map(str, dims))} "
            "dimensions. Name one of these, or add it to student.short_dims."
        )
    student.save(bench.folder, recipe.release.dimension, recipe.student.prompts)
    lineage = {name: json.loads(artefact.manifest.to_json())["identity"] for name, artefact in bench.inputs.items()}
    (bench.folder / "lineage.json").write_text(json.dumps(lineage, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    parameters = sum(p.numel() for p in student.parameters())
    card = _model_card(recipe, bench.inputs, dims, parameters)
    (bench.folder / "README.md").write_text(card, encoding="utf-8")
    expected = student.encode(PROBES, recipe.release.dimension)
    deviation = float(np.abs(_reloaded_vectors(bench.folder, recipe.student.trust_remote_code) - expected).max())
    return Result(
        facts={
            "dimensions": dims,
            "default_dimension": recipe.release.dimension,
            "parameters": parameters,
            "megabytes": round(sum(f.stat().st_size for f in bench.folder.rglob("*") if f.is_file()) / 1e6, 1),
            "licence": recipe.release.licence,
        },
        checks=(
            Check(
                "sentence_transformers_gives_the_same_vectors",
                deviation < 0.02,  # bfloat16 here, float32 there
                f"largest difference of an entry after loading the folder: {deviation:.1e}",
            ),
        ),
    )


def _reloaded_vectors(folder: Path, trust_remote_code: bool) -> Any:
    model = load_sentence_transformer(str(folder), local_files_only=True, trust_remote_code=trust_remote_code)
    return model.encode(list(PROBES), show_progress_bar=False)


def _model_card(recipe: Recipe, inputs: dict[str, Artefact] | Any, dims: list[int], parameters: int) -> str:
    from jinja2 import Environment, PackageLoader

    summary = read_summary(inputs["evaluation_report"])
    teachers = [
        [t.name, t.kind, inputs[f"teacher_vectors/{t.name}"].manifest.facts["dim"], t.weight, t.licence]
        for t in recipe.teachers
    ]
    # No times here: the card is part of the release's digest.
    lineage = [[name, a.digest[:12], a.manifest.identity.code_version] for name, a in inputs.items()]
    templates = Environment(loader=PackageLoader("stella_assets.release"), trim_blocks=True, autoescape=False)  # noqa: S701 (Markdown)
    return templates.get_template("model_card.md.j2").render(
        recipe=recipe,
        dims=dims,
        parameters=parameters,
        licence_table=tables.markdown_table(["licence of the text", "texts"], licence_counts(inputs["corpus"])),
        score_table=tables.markdown_table(*tables.score_rows(summary)),
        retention_table=tables.markdown_table(*tables.retention_rows(summary)),
        teacher_table=tables.markdown_table(["teacher", "kind", "dimensions", "weight", "licence"], teachers),
        lineage_table=tables.markdown_table(["artefact", "digest", "code version"], lineage),
    )
