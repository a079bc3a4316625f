"""Step `concatenated_vectors`: a snapshot of all teachers' vectors, and how they are joined to what students learn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from stella_assets.core.manifest import Check
from stella_assets.core.present import Rows, Shown
from stella_assets.core.progress import progress_bar
from stella_assets.core.step import Artefact, BuildContext, CheckSpec, Presentation, Result, Step
from stella_assets.corpus.read import CorpusTexts
from stella_assets.teachers.centre import measure_centre
from stella_assets.teachers.kinds.base import TeacherConfig
from stella_assets.teachers.refusal import Texts, TextsWithout
from stella_assets.teachers.snapshot import LEFT_OUT, VECTOR, Layout, Snapshot, has_snapshot
from stella_assets.teachers.snapshot_writer import SnapshotWriter, TeacherColumn
from stella_assets.teachers.tables import SNAPSHOTS_ASSET
from stella_assets.teachers.teacher_vectors import TeacherVectors, read_reference

CODE_VERSION = "3"
REFERENCE = "snapshot.json"
COMPLETE = CheckSpec(
    "every_text_has_a_vector", "The table has as many rows as the corpus has texts that every teacher takes."
)


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
            "center": [teacher.center for teacher in teachers],
        },
        build=lambda context: _write_snapshot(recipe, recipe_digest, teachers, vectors, corpus, context),
        presentation=Presentation(
            group="teachers",
            description="What the student learns: `norm(concat(w1 t1, w2 t2, ...))`, each t centred where "
            "its teacher needs it: a tagged version of a "
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
    texts, left_out = _taken(context.read(corpus), teachers, vectors, context)
    columns = [_column(teacher, vectors, texts, context, joined=len(teachers) > 1) for teacher in teachers]
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
        written = writer.write(context.key, texts, columns, _lineage(recipe, recipe_digest, left_out, context))
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
        "layout": snapshot.layout.to_json(),
        "teachers": digests,
    }
    (context.folder / REFERENCE).write_text(json.dumps(reference, indent=1, sort_keys=True))
    rows, layout = len(snapshot), snapshot.layout.describe()
    return Result(
        metrics={
            "rows": rows,
            **({"refused": len(left_out)} if left_out.size else {}),
            "rows_written": written.rows_written,
            "dim": dim,
            "table": writer.name,
            "tag": context.key,
            "lance_version": written.version,
            "mean_cosines": layout["mean_cosines"],
            "centred": [name for name, centred in zip(layout["teachers"], layout["centred"], strict=True) if centred],
        },
        checks=(Check(COMPLETE.name, rows == len(texts), f"{rows:,} rows for {len(texts):,} texts"),),
    )


def _taken(
    corpus: CorpusTexts,
    teachers: Sequence[TeacherConfig],
    vectors: Mapping[str, Step[TeacherVectors]],
    context: BuildContext,
) -> tuple[Texts, np.ndarray]:
    """The texts that every teacher takes, and the positions of the others in the corpus."""
    found = [context.read(vectors[teacher.name]).left_out(corpus) for teacher in teachers]
    left_out = np.unique(np.concatenate(found))
    if not left_out.size:
        return corpus, left_out
    context.log.warning(f"{SNAPSHOTS_ASSET}: texts that a teacher does not take are left out: {len(left_out):,}")
    return TextsWithout(corpus, left_out), left_out


def _column(
    teacher: TeacherConfig,
    vectors: Mapping[str, Step[TeacherVectors]],
    texts: Texts,
    context: BuildContext,
    *,
    joined: bool,
) -> TeacherColumn:
    stored = context.read(vectors[teacher.name])
    centre = measure_centre(teacher.name, teacher.center, texts, stored.fetch, joined=joined)
    if centre.mean_D is not None:
        context.log.info(
            f"{SNAPSHOTS_ASSET}: two texts have a mean cosine of {centre.mean_cosine:.2f} by {teacher.name}, so it is "
            f"joined without its mean (center: {str(teacher.center).lower()})"
        )
    return TeacherColumn.of(teacher.name, teacher.weight, stored, centre)


def _lineage(recipe: str, recipe_digest: str, left_out: np.ndarray, context: BuildContext) -> dict[str, object]:
    """What the snapshot is made of, for the table's metadata."""
    return {
        "recipe": recipe,
        "recipe_digest": recipe_digest,
        "asset": SNAPSHOTS_ASSET,
        "key": context.key,
        "code_version": CODE_VERSION,
        "inputs": {step.stored_as: artefact.digest for step, artefact in context.inputs.items()},
        **({LEFT_OUT: left_out.tolist()} if left_out.size else {}),
    }


def _show(artefact: Artefact) -> Mapping[str, Shown]:
    written = json.loads((artefact.folder / REFERENCE).read_text())["layout"]
    layout = Layout.from_json(written).describe()
    keys = ("teachers", "dims", "weights", "mean_cosines", "centred")
    rows = zip(*(layout[key] for key in keys), strict=True)
    columns = ("column", "dim", "weight", "mean_cosine", "centred")
    return {"layout": Rows([dict(zip(columns, (VECTOR + name, *rest), strict=True)) for name, *rest in rows])}
