"""Step `concatenated_vectors`: the target `t = norm(concat(w_1 t_1, w_2 t_2, ...))` (arXiv 2412.19048, section 2.1).

With unit vectors t_k, the cosine of two targets is the mean of the teachers' cosines weighted with w_k squared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from stella_assets.core.manifest import Check
from stella_assets.core.present import Rows, Shown
from stella_assets.core.progress import progress_bar
from stella_assets.core.step import Artefact, BuildContext, CheckSpec, Presentation, Result, Step
from stella_assets.corpus.read import CorpusTexts
from stella_assets.teachers.kinds.base import TeacherConfig
from stella_assets.teachers.snapshot import VECTOR, Snapshot, has_snapshot
from stella_assets.teachers.snapshot_writer import SnapshotWriter, TeacherColumn
from stella_assets.teachers.tables import SNAPSHOTS_ASSET
from stella_assets.teachers.teacher_vectors import TeacherVectors, read_reference

CODE_VERSION = "2"
REFERENCE = "snapshot.json"
COMPLETE = CheckSpec("every_text_has_a_vector", "The table has as many rows as the corpus has texts.")


def concatenate(vectors: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Concatenate vectors by weight and normalise: `norm(concat(w_1 norm(t_1), w_2 norm(t_2), ...))`.

    Args:
        vectors: One block `[n, dim_k]` per teacher, of any float type; no row may be zero.
        weights: One per teacher, above 0.

    Returns:
        `[n, sum of dim_k]` float32, rows of unit norm.

    References:
        arXiv 2412.19048, section 2.1.

    Example:
        >>> concatenate([np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])], [1.0, 1.0]).round(3)
        array([[0.707, 0.   , 0.   , 0.707]], dtype=float32)
    """
    parts = []
    for block, weight in zip(vectors, weights, strict=True):
        block_f32 = block.astype(np.float32)
        # Stored vectors are of unit norm up to float16; without this the error would change the weights a little.
        parts.append(block_f32 * (weight / np.linalg.norm(block_f32, axis=1, keepdims=True)))
    joined = np.concatenate(parts, axis=1)
    return joined / np.linalg.norm(joined, axis=1, keepdims=True)


def concatenation_step(
    recipe: str,
    *,
    recipe_digest: str,
    teachers: Sequence[TeacherConfig],
    vectors: Mapping[str, Step[TeacherVectors]],
    corpus: Step[CorpusTexts],
) -> Step[Snapshot]:
    """The step that makes a snapshot of all teachers' vectors, a tagged version of the recipe's table.

    Args:
        recipe: Name of the recipe, and of its table.
        recipe_digest: Digest of the recipe, for the table's metadata.
        teachers: In the order of the concatenation.
        vectors: By teacher, the step that makes its vectors.
        corpus: The step that makes the corpus.
    """
    return Step(
        recipe=recipe,
        name=SNAPSHOTS_ASSET,
        code_version=CODE_VERSION,
        settings={
            # Two recipes with equal inputs have a table each, so the name is part of the identity.
            "table": recipe,
            "teachers": [teacher.name for teacher in teachers],
            "weights": [teacher.weight for teacher in teachers],
        },
        build=lambda context: _write_snapshot(recipe, recipe_digest, teachers, vectors, corpus, context),
        presentation=Presentation(
            group="teachers",
            description="What the student learns: `norm(concat(w1 t1, w2 t2, ...))`, a tagged version of a "
            "[LanceDB](https://lancedb.com) table.",
            kinds=frozenset({"lancedb"}),
            checks=(COMPLETE,),
            show=_show,
        ),
        read=lambda artefact, workspace: Snapshot.open(workspace, recipe, artefact.manifest.identity.key),
        dependencies=(corpus, *(vectors[teacher.name] for teacher in teachers)),
        is_available=lambda artefact, workspace: has_snapshot(workspace, recipe, artefact.manifest.identity.key),
    )


def _write_snapshot(
    recipe: str,
    recipe_digest: str,
    teachers: Sequence[TeacherConfig],
    vectors: Mapping[str, Step[TeacherVectors]],
    corpus: Step[CorpusTexts],
    context: BuildContext,
) -> Result:
    texts = context.read(corpus)
    columns = [
        TeacherColumn.of(teacher.name, teacher.weight, context.read(vectors[teacher.name])) for teacher in teachers
    ]
    dim = sum(column.dim for column in columns)
    # 2 bytes per float16. Asked for before anything is written: a full disk would be found hours later.
    context.workspace.require_space(
        len(texts) * dim * 2, f"a snapshot of {len(texts):,} rows of {dim} dimensions", context.workspace.vectors
    )
    with progress_bar(len(texts), SNAPSHOTS_ASSET, "rows") as bar:
        writer = SnapshotWriter(
            context.workspace,
            recipe,
            on_wait=lambda: context.log.info(f"{SNAPSHOTS_ASSET}: another run is writing this table; waiting for it."),
            on_rows=bar.update,
        )
        # The tag is the artefact's key: a run that was killed after tagging finds its snapshot and writes nothing.
        written = writer.write(context.key, texts, columns, _lineage(recipe, recipe_digest, context))
    context.log.info(
        f"{SNAPSHOTS_ASSET}: {written.rows_written:,} of {written.rows:,} rows written, and for the rows that were "
        f"there the columns of {', '.join(written.columns_written) or 'no teacher'}"
    )
    snapshot = Snapshot.open(context.workspace, recipe, context.key)
    # The table lies outside the folder; through these digests the artefact's own digest covers the vectors.
    digests = {t.name: read_reference(context.artefact(vectors[t.name]).folder).digest for t in teachers}
    reference = {
        "table": writer.name,
        "tag": context.key,
        "layout": asdict(snapshot.layout),
        "teachers": digests,
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
        checks=(Check(COMPLETE.name, rows == len(texts), f"{rows:,} rows for {len(texts):,} texts"),),
    )


def _lineage(recipe: str, recipe_digest: str, context: BuildContext) -> dict[str, object]:
    """What the snapshot is made of, for the table's metadata."""
    return {
        "recipe": recipe,
        "recipe_digest": recipe_digest,
        "asset": SNAPSHOTS_ASSET,
        "key": context.key,
        "code_version": CODE_VERSION,
        "inputs": {step.stored_as: artefact.digest for step, artefact in context.inputs.items()},
    }


def _show(artefact: Artefact) -> Mapping[str, Shown]:
    layout = json.loads((artefact.folder / REFERENCE).read_text())["layout"]
    teachers = zip(layout["teachers"], layout["dims"], layout["weights"], strict=True)
    return {"layout": Rows([{"column": VECTOR + name, "dim": dim, "weight": weight} for name, dim, weight in teachers])}
