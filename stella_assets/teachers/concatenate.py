"""The concatenated target `t = norm(concat(w_1 t_1, w_2 t_2, ...))` (arXiv 2412.19048, section 3.1).

With unit vectors t_k, the cosine of two targets is the mean of the teachers' cosines weighted with w_k squared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa

from stella_assets.corpus.build import corpus_step, read_texts
from stella_assets.manifest import Check
from stella_assets.recipe import Recipe
from stella_assets.step import Artefact, Result, Step, Workbench
from stella_assets.teachers.encode import TeacherVectors, read_reference, teacher_step
from storage.database import to_arrow
from storage.home import Home
from storage.snapshot import TEXT_COLUMNS, Layout, Snapshot, Snapshots, snapshot_schema

CODE_VERSION = "1"
REFERENCE = "snapshot.json"
BLOCK_ROWS = 8192


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
        build=lambda bench: _write_snapshot(recipe, bench),
        present=lambda artefact, home: Snapshots(home, recipe.name).has(artefact.manifest.identity.key),
    )


def _write_snapshot(recipe: Recipe, bench: Workbench) -> Result:
    artefacts = {teacher.name: bench.inputs[f"teacher_vectors/{teacher.name}"] for teacher in recipe.teachers}
    references = {name: read_reference(artefact) for name, artefact in artefacts.items()}
    layout = Layout(
        teachers=tuple(references),
        dims=tuple(reference.dim for reference in references.values()),
        weights=tuple(teacher.weight for teacher in recipe.teachers),
    )
    texts = read_texts(bench.inputs["corpus"], list(TEXT_COLUMNS))
    bench.home.require_space(len(texts) * layout.dim * 2, f"a snapshot of {len(texts):,} rows of {layout.dim} dims")
    schema = snapshot_schema(layout, {name: artefact.digest for name, artefact in bench.inputs.items()})
    sources = [TeacherVectors.open(teacher, artefacts[teacher.name], bench.home) for teacher in recipe.teachers]
    snapshots = Snapshots(bench.home, recipe.name)
    version = snapshots.write(bench.key, schema, _batches(texts, sources, layout, schema))
    rows = len(snapshots.open(bench.key))
    reference = {
        "table": snapshots.name,
        "tag": bench.key,
        "layout": asdict(layout),
        "teachers": {name: reference.digest for name, reference in references.items()},
    }
    (bench.folder / REFERENCE).write_text(json.dumps(reference, indent=1, sort_keys=True))
    return Result(
        facts={"rows": rows, "dim": layout.dim, "table": snapshots.name, "tag": bench.key, "lance_version": version},
        checks=(Check("every_text_has_a_vector", rows == len(texts), f"{rows:,} rows for {len(texts):,} texts"),),
    )


def _batches(
    texts: pa.Table, sources: list[TeacherVectors], layout: Layout, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(texts), BLOCK_ROWS):
        block = texts.slice(start, BLOCK_ROWS).combine_chunks()
        ids, roles = block.column("id").to_pylist(), block.column("role").to_pylist()
        target = concatenate([source.fetch(ids, roles) for source in sources], layout.weights)
        columns = [*(block.column(name).combine_chunks() for name in TEXT_COLUMNS), to_arrow(target)]
        yield pa.RecordBatch.from_arrays(
            [c.chunk(0) if isinstance(c, pa.ChunkedArray) else c for c in columns], schema=schema
        )


def open_snapshot(recipe: Recipe, artefact: Artefact, home: Home) -> Snapshot:
    """The table version that a `concatenated_vectors` artefact names."""
    return Snapshots(home, recipe.name).open(artefact.manifest.identity.key)
