"""The concatenated target `t = norm(concat(w_1 t_1, w_2 t_2, ...))` (arXiv 2412.19048, section 3.1).

With unit vectors t_k, the cosine of two targets is the mean of the teachers' cosines weighted with w_k squared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from storage.workspace import Workspace

from stella_assets.core.manifest import Check
from stella_assets.core.progress import progress_bar
from stella_assets.core.step import Artefact, BuildContext, Result, Step
from stella_assets.corpus.build import corpus_step
from stella_assets.corpus.read import CorpusTexts
from stella_assets.recipe import Recipe
from stella_assets.teachers.encode import TeacherVectors, read_reference, teacher_step
from storage.snapshot import Snapshot, snapshot_tags
from storage.snapshot_writer import SnapshotWriter, TeacherColumn

CODE_VERSION = "2"
REFERENCE = "snapshot.json"


def concatenate(vectors: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Concatenate unit vectors `[n, dim_k]` by weight and normalise: `[n, sum of dim_k]` float32."""
    parts = []
    for block, weight in zip(vectors, weights, strict=True):
        block_f32 = block.astype(np.float32)
        parts.append(block_f32 * (weight / np.linalg.norm(block_f32, axis=1, keepdims=True)))
    joined = np.concatenate(parts, axis=1)
    return joined / np.linalg.norm(joined, axis=1, keepdims=True)


def concatenation_step(recipe: Recipe) -> Step:
    """The step that makes `concatenated_vectors`."""
    return Step(
        recipe=recipe.name,
        name="concatenated_vectors",
        code_version=CODE_VERSION,
        settings={
            "table": recipe.name,
            "teachers": [teacher.name for teacher in recipe.teachers],
            "weights": [teacher.weight for teacher in recipe.teachers],
        },
        needs=(corpus_step(recipe), *(teacher_step(recipe, teacher) for teacher in recipe.teachers)),
        build=lambda context: _write_snapshot(recipe, context),
        present=lambda artefact, workspace: artefact.manifest.identity.key in snapshot_tags(workspace, recipe.name),
    )


def _write_snapshot(recipe: Recipe, context: BuildContext) -> Result:
    texts = CorpusTexts(context.inputs["corpus"])
    columns = teacher_columns(recipe, context.inputs, context.workspace)
    dim = sum(column.dim for column in columns)
    context.workspace.require_space(len(texts) * dim * 2, f"a snapshot of {len(texts):,} rows of {dim} dims")
    with progress_bar(len(texts), "concatenated_vectors", "rows") as bar:
        writer = SnapshotWriter(
            context.workspace,
            recipe.name,
            on_wait=lambda: context.log.info(
                "concatenated_vectors: another run is writing this table; waiting for it."
            ),
            on_rows=bar.update,
        )
        written = writer.write(context.key, texts, columns, lineage(recipe, context))
    context.log.info(
        f"concatenated_vectors: {written.rows_written:,} of {written.rows:,} rows written, and for the rows that were "
        f"there the columns of {', '.join(written.columns_written) or 'no teacher'}"
    )
    snapshot = open_snapshot(recipe, context.key, context.workspace)
    references = {t.name: read_reference(context.inputs[f"teacher_vectors/{t.name}"]) for t in recipe.teachers}
    reference = {
        "table": writer.name,
        "tag": context.key,
        "layout": asdict(snapshot.layout),
        "teachers": {name: reference.digest for name, reference in references.items()},
    }
    (context.folder / REFERENCE).write_text(json.dumps(reference, indent=1, sort_keys=True))
    rows = len(snapshot)
    return Result(
        metrics={
            "rows": rows,
            "rows_written": written.rows_written,
            "dim": dim,
            "table": writer.name,
            "tag": context.key,
            "lance_version": written.version,
        },
        checks=(Check("every_text_has_a_vector", rows == len(texts), f"{rows:,} rows for {len(texts):,} texts"),),
    )


def teacher_columns(recipe: Recipe, inputs: Mapping[str, Artefact], workspace: Workspace) -> list[TeacherColumn]:
    """The recipe's teachers as columns of a snapshot, read from their vectors."""
    columns = []
    for teacher in recipe.teachers:
        vectors = TeacherVectors.open(teacher, inputs[f"teacher_vectors/{teacher.name}"], workspace)
        columns.append(TeacherColumn(teacher.name, vectors.dim, teacher.weight, vectors.fingerprints, vectors.fetch))
    return columns


def lineage(recipe: Recipe, context: BuildContext) -> dict[str, object]:
    """What the snapshot is made of, as its table says it."""
    return {
        "recipe": recipe.name,
        "recipe_digest": recipe.digest,
        "asset": "concatenated_vectors",
        "key": context.key,
        "code_version": CODE_VERSION,
        "inputs": {name: artefact.digest for name, artefact in context.inputs.items()},
    }


def open_snapshot(recipe: Recipe, key: str, workspace: Workspace) -> Snapshot:
    """The table version of a `concatenated_vectors` artefact's key."""
    return Snapshot.open(workspace, recipe.name, key)
