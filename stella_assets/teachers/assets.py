"""The assets `teacher_vectors/<teacher>`, `concatenated_vectors` and `vector_stats`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pyarrow.parquet as pq

from stella_assets import plots
from stella_assets.assets import picture, step_asset, table
from stella_assets.core.step import Artefact
from stella_assets.corpus.assets import EXAMPLES, show_dropped
from stella_assets.recipe import Recipe, Teacher
from stella_assets.teachers.concatenate import REFERENCE, concatenation_step
from stella_assets.teachers.encode import TEACHERS_FILE, teacher_step
from stella_assets.teachers.semantic_duplicates import semantic_duplicates_step
from stella_assets.teachers.statistics import SIMILARITIES_FILE, STATS_FILE, statistics_step
from stella_assets.teachers.suspects import SUSPECTS_FILE, suspects_step


def teacher_assets(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """One asset a teacher, then their concatenation and its statistics."""
    teachers = [
        step_asset(
            teacher_step(recipe, teacher),
            group="teachers",
            kinds={"lancedb", "scikitlearn" if teacher.kind == "lsa" else "huggingface"},
            description=_describe(teacher),
            checks={"vectors_are_unit_norm": "Every vector has norm 1, but for float16."},
            show=_show_teacher,
        )
        for teacher in recipe.teachers
    ]
    concatenation = step_asset(
        concatenation_step(recipe),
        group="teachers",
        kinds={"lancedb"},
        description="What the student learns: `norm(concat(w1 t1, w2 t2, ...))`, a tagged version of a "
        "[LanceDB](https://lancedb.com) table.",
        checks={"every_text_has_a_vector": "The table has as many rows as the corpus has texts."},
        show=_show_snapshot,
    )
    statistics = step_asset(
        statistics_step(recipe),
        group="teachers",
        kinds={"parquet", "duckdb"},
        description="Norms, anisotropy and effective rank of the vectors, and how far the teachers agree.",
        checks={"no_nan_or_zero_rows": "No vector holds NaN or only zeros."},
        show=_show_statistics,
        soon=True,
    )
    return [*teachers, concatenation, statistics, *_semantic_assets(recipe)]


def _describe(teacher: Teacher) -> str:
    model = f"`{teacher.name}`"
    if teacher.kind == "sentence_transformers" and teacher.on_hub:
        model = f"[{teacher.name}](https://huggingface.co/{teacher.model}/tree/{teacher.revision})"
    return f"Vectors of {model} ({teacher.kind}, {teacher.licence}); a text is embedded once."


def _semantic_assets(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """What teachers' vectors say of the texts, where the recipe asks."""
    duplicates, suspects = semantic_duplicates_step(recipe), suspects_step(recipe)
    made = []
    if duplicates:
        made.append(
            step_asset(
                duplicates,
                group="teachers",
                kinds={"lancedb", "parquet"},
                description="Texts that a teacher finds too like another one: no stage trains on them.",
                checks={},
                show=show_dropped,
            )
        )
    if suspects:
        made.append(
            step_asset(
                suspects,
                group="teachers",
                kinds={"lancedb", "parquet"},
                description="Texts that a teacher finds like an evaluation text: a list to look at, nothing goes.",
                checks={},
                show=_show_suspects,
                soon=True,
            )
        )
    return made


def _show_teacher(artefact: Artefact) -> Mapping[str, Any]:
    columns = ["role", "fingerprint", "model", "prompt", "pooling", "max_length", "dtype", "dim", "texts"]
    return {"teacher": table(pq.read_table(artefact.folder / TEACHERS_FILE, columns=columns).to_pylist())}


def _show_suspects(artefact: Artefact) -> Mapping[str, Any]:
    columns = ["task", "cosine", "excerpt", "evaluation_excerpt"]
    suspects = pq.read_table(artefact.folder / SUSPECTS_FILE, columns=columns)
    by_task = suspects.group_by("task").aggregate([("cosine", "count"), ("cosine", "max")]).sort_by("task")
    return {"tasks": table(by_task.to_pylist()), "most_similar": table(suspects.slice(0, EXAMPLES).to_pylist())}


def _show_snapshot(artefact: Artefact) -> Mapping[str, Any]:
    layout = json.loads((artefact.folder / REFERENCE).read_text())["layout"]
    teachers = zip(layout["teachers"], layout["dims"], layout["weights"], strict=True)
    rows = [{"column": f"vector_{name}", "dim": dim, "weight": weight} for name, dim, weight in teachers]
    return {"layout": table(rows)}


def _show_statistics(artefact: Artefact) -> Mapping[str, Any]:
    stats, agreement = artefact.manifest.metrics["vectors"], artefact.manifest.metrics["agreement"]
    rows = {f"mean_cosine_{row['teacher']}": float(row["mean_cosine"]) for row in stats}
    ranks = {f"effective_rank_{row['teacher']}": float(row["effective_rank"]) for row in stats}
    similarities = pq.read_table(artefact.folder / SIMILARITIES_FILE).to_pylist()
    columns = ["teacher", "source", "rows", "mean_cosine", "effective_rank", "norm_mean", "nan_rows", "zero_rows"]
    by_source = pq.read_table(artefact.folder / STATS_FILE, columns=columns).to_pylist()
    overlap = {f"neighbour_overlap_{row['a']}_{row['b']}": float(row["neighbour_overlap"]) for row in agreement}
    return {
        **rows,
        **ranks,
        **overlap,
        "similarities": picture(plots.similarity_histograms(similarities), "cosines of pairs of texts, by teacher"),
        "agreement": picture(plots.cosine_agreement(stats, agreement), "agreement of teachers"),
        "by_source": table(by_source),
        "drift": table(artefact.manifest.metrics["drift"]),
    }
