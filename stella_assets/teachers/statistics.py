"""Step `vector_stats`: statistics of a snapshot, and how far it has moved from the one before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq

from stella_assets.core.manifest import Check
from stella_assets.core.present import Picture, Rows, Shown
from stella_assets.core.progress import progress_bar
from stella_assets.core.step import Artefact, BuildContext, CheckSpec, Presentation, Result, Step
from stella_assets.teachers import plots
from stella_assets.teachers.drift import previous_snapshot, snapshot_drift
from stella_assets.teachers.measures import NEIGHBOURS
from stella_assets.teachers.snapshot import Snapshot
from stella_assets.teachers.snapshot_measures import ALL, SAMPLE_ROWS, SOURCE_SAMPLE_ROWS, measure_snapshot
from stella_assets.teachers.tables import (
    DIMENSION_STATS,
    DRIFT,
    SIMILARITIES,
    STATISTICS_ASSET,
    TEACHER_AGREEMENT,
    VECTOR_STATS,
)
from stella_assets.teachers.teacher_vectors import TeacherVectors

CODE_VERSION = "4"
WHOLE = CheckSpec("no_nan_or_zero_rows", "No vector holds NaN or only zeros.")


def statistics_step(
    recipe: str, *, vectors: Mapping[str, Step[TeacherVectors]], concatenation: Step[Snapshot]
) -> Step[Artefact]:
    """The step that measures a snapshot.

    Args:
        recipe: Name of the recipe.
        vectors: By teacher, the step that makes its vectors.
        concatenation: The step that makes the snapshot.

    Returns:
        A step that writes the tables `vector_stats`, `dimension_stats`, `teacher_agreement`, `similarities` and
        `drift`.
    """
    return Step(
        recipe=recipe,
        name=STATISTICS_ASSET,
        code_version=CODE_VERSION,
        settings={"sample_rows": SAMPLE_ROWS, "source_sample_rows": SOURCE_SAMPLE_ROWS, "neighbours": NEIGHBOURS},
        build=lambda context: _measure(recipe, concatenation, context),
        presentation=Presentation(
            group="teachers",
            description="Norms, anisotropy and effective rank of the vectors, and how far the teachers agree.",
            kinds=frozenset({"parquet", "duckdb"}),
            checks=(WHOLE,),
            show=_show,
        ),
        dependencies=(*vectors.values(), concatenation),
        # Before stages that are ready, too: a broken teacher shows before hours of training.
        priority=1,
    )


def _measure(recipe: str, concatenation: Step[Snapshot], context: BuildContext) -> Result:
    snapshot, tag = context.read(concatenation), context.artefact(concatenation).manifest.identity.key
    with progress_bar(len(snapshot), STATISTICS_ASSET, "rows") as bar:
        measured = measure_snapshot(snapshot, bar.update)
    before = previous_snapshot(context.workspace, recipe, tag)
    # A first snapshot has none; its table is written nevertheless, without rows.
    drift = [{"previous": before[0], **row} for row in snapshot_drift(before[1], snapshot)] if before else []
    named = {"recipe": recipe, "snapshot": tag}
    moved = [{**named, **row} for row in drift]
    for table, rows in (
        (VECTOR_STATS, measured["stats"]),
        (DIMENSION_STATS, measured["dimensions"]),
        (TEACHER_AGREEMENT, measured["agreement"]),
        (SIMILARITIES, measured["similarities"]),
        (DRIFT, drift),
    ):
        table.write(context.folder, [{**named, **row} for row in rows])
    # Rows of single sources are counted in those of all.
    whole = [row for row in measured["stats"] if row["source"] == ALL]
    bad = sum(row["nan_rows"] + row["zero_rows"] for row in whole)
    return Result(
        metrics={"vectors": whole, "agreement": measured["agreement"], "drift": moved},
        checks=(Check(WHOLE.name, bad == 0, f"{bad} rows hold NaN or only zeros"),),
        # Drift depends on what was there before, and the last bit of a cosine decides on which side of an edge it is.
        unhashed_files=(DRIFT.file, SIMILARITIES.file),
    )


def _show(artefact: Artefact) -> Mapping[str, Shown]:
    metrics: Mapping[str, Any] = artefact.manifest.metrics
    stats, agreement = metrics["vectors"], metrics["agreement"]
    similarities = pq.read_table(artefact.folder / SIMILARITIES.file).to_pylist()
    columns = ["teacher", "source", "rows", "mean_cosine", "centred", "effective_rank", "norm_mean"]
    columns += ["nan_rows", "zero_rows"]
    by_source = pq.read_table(artefact.folder / VECTOR_STATS.file, columns=columns).to_pylist()
    return {
        **_figures("mean_cosine", {row["teacher"]: row["mean_cosine"] for row in stats}),
        **_figures("effective_rank", {row["teacher"]: row["effective_rank"] for row in stats}),
        **_figures("neighbour_overlap", {f"{row['a']}_{row['b']}": row["neighbour_overlap"] for row in agreement}),
        "similarities": Picture(plots.similarity_histograms(similarities), "cosines of pairs of texts, by teacher"),
        "agreement": Picture(plots.cosine_agreement(stats, agreement), "agreement of teachers"),
        "by_source": Rows(by_source),
        "drift": Rows(metrics["drift"]),
    }


def _figures(name: str, values: Mapping[str, float | None]) -> Mapping[str, Shown]:
    """Figures to show; too few texts have no such figure."""
    return {f"{name}_{of}": float(value) for of, value in values.items() if value is not None}
