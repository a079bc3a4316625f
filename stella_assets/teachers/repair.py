"""Repair of the vector store: what is damaged is removed, and just that is computed or written again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stella_assets.core.runner import Runner
from stella_assets.core.trace import Node, Tracer
from stella_assets.corpus.read import CorpusTexts
from stella_assets.storage.artefacts import MANIFEST
from stella_assets.storage.database import drop_table, open_table
from stella_assets.storage.errors import DamageError, VectorError
from stella_assets.storage.integrity import Damage, drop_damaged
from stella_assets.storage.journal_repair import mend_journal
from stella_assets.storage.keys import to_keys
from stella_assets.storage.locks import file_lock
from stella_assets.storage.units import data_file
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.audit import JOURNALS, Audit, AuditedRecipe, encoded_teachers
from stella_assets.teachers.concatenate import REFERENCE
from stella_assets.teachers.refusal import Texts
from stella_assets.teachers.snapshot import LEFT_OUT, Layout, Snapshot
from stella_assets.teachers.snapshot_writer import SnapshotWriter, TeacherColumn
from stella_assets.teachers.tables import (
    SCORES,
    SNAPSHOT,
    SNAPSHOTS_ASSET,
    STATES,
    snapshot_tables,
    teacher_asset,
    teacher_tables,
)
from stella_assets.teachers.teacher_vectors import TeacherVectors, read_reference


class _MaterialsGoneError(Exception):
    """Something that a snapshot was made of is gone."""


def repair(audit: Audit, recipes: Sequence[AuditedRecipe], runner: Runner) -> list[str]:
    """Remove what is damaged, encode its texts again, and write damaged columns of snapshots again, old ones too.

    Args:
        audit: What is damaged.
        recipes: Recipes whose texts can be encoded again.
        runner: Has the workspace and the device.

    Returns:
        What was done, and what could not be, in words.

    Raises:
        VectorError: A teacher made vectors that must not be stored.
        DiskSpaceError: The disk is full. What was committed stays, and a new audit and repair go on from there.
    """
    workspace = runner.workspace

    def say_waiting() -> None:
        runner.log.info("another run is writing to the store; waiting for it.")

    done: list[str] = []
    by_table: dict[str, list[Damage]] = {}
    for damage in audit.damages:
        by_table.setdefault(damage.table, []).append(damage)
    # First: snapshots are written again from teachers' vectors, so those must be whole by then.
    done += _take_out(workspace, by_table, say_waiting)
    done += _mend_journals(workspace, by_table.get(JOURNALS, ()))
    for recipe in recipes:
        for vectors, texts in encoded_teachers(recipe, runner):
            # Dropped rows count as missing, so this is the usual encoding.
            if encoded := vectors.fill(texts, runner.compute, runner.log):
                done.append(f"{recipe.name}/{vectors.teacher.name}: embedded {encoded:,} texts again")
                done += _say_if_different(recipe, vectors, texts, runner)
    for name in snapshot_tables(list(by_table)):
        done += _repair_snapshots(workspace, name.removesuffix(SNAPSHOT), by_table[name])
    return done


def _take_out(
    workspace: Workspace, by_table: Mapping[str, list[Damage]], say_waiting: Callable[[], None]
) -> Iterator[str]:
    """Take out what is damaged of the tables that snapshots are written from, and of those that are made on demand."""
    for name in teacher_tables(list(by_table)):
        # Lance drops whole fragments; the other rows of a unit are encoded again with it.
        damages = [_unit_of(workspace, damage) for damage in by_table[name]]
        rows = drop_damaged(workspace, name, damages, say_waiting)
        yield f"{name}: took out units of {rows:,} rows"
    for name, damages in by_table.items():
        if name.startswith(STATES):
            with file_lock(workspace, name, say_waiting):
                drop_table(workspace, name)
            yield f"{name}: removed; it is computed again when it is needed"
        if name.startswith(SCORES):
            rows = drop_damaged(workspace, name, damages, say_waiting)
            yield f"{name}: took out units of {rows:,} scores; they are computed again when they are needed"


def _mend_journals(workspace: Workspace, damages: Sequence[Damage]) -> Iterator[str]:
    for damage in damages:
        file = workspace.root / damage.place
        # The lock of its service: nobody appends meanwhile.
        with file_lock(workspace, f"api.{file.relative_to(workspace.api).parts[0]}"):
            mend_journal(workspace.root, file)
        yield f"{damage.place}: its damaged records were taken out"


def _unit_of(workspace: Workspace, damage: Damage) -> Damage:
    """A vector that is not its text's puts its whole unit in doubt."""
    if not damage.place.startswith("id "):
        return damage
    dataset = open_table(workspace, damage.table)
    key = to_keys([damage.place.removeprefix("id ")])
    for fragment in dataset.get_fragments():
        if any(np.isin(key, to_keys(batch.column(0))).any() for batch in fragment.to_batches(columns=["id"])):
            return Damage(damage.table, data_file(fragment.data_files()[0].path), damage.what, damage.rows)
    return damage


def _say_if_different(
    recipe: AuditedRecipe, vectors: TeacherVectors, texts: CorpusTexts, runner: Runner
) -> Iterator[str]:
    artefact = runner.find(recipe.teachers[vectors.teacher.name])
    # Another machine, library or batch can change last bits; the artefact's digest is of the vectors that were lost.
    if artefact is not None and vectors.digest(texts)[0] != read_reference(artefact.folder).digest:
        yield (
            f"{recipe.name}/{vectors.teacher.name}: the vectors differ in their last bits from those that were lost; "
            "snapshots keep the old ones, and the next one has the new"
        )


def _repair_snapshots(workspace: Workspace, recipe: str, damages: list[Damage]) -> Iterator[str]:
    places = {damage.place for damage in damages}
    # One version at a time: each has its own texts, teachers and weights.
    for tag in sorted({tag for damage in damages for tag in damage.tags}):
        try:
            texts, columns, lineage = _materials(workspace, recipe, tag)
            written = SnapshotWriter(workspace, recipe).write(tag, texts, columns, lineage, damaged=places)
            yield f"{recipe}{SNAPSHOT} {tag}: {written.rows_written:,} rows and the damaged columns written again"
        # The other snapshots can still be repaired; the report says which one was not.
        except (VectorError, DamageError, _MaterialsGoneError) as error:
            yield f"{recipe}{SNAPSHOT} {tag}: cannot be repaired: {error}"


def _materials(workspace: Workspace, recipe: str, tag: str) -> tuple[Texts, list[TeacherColumn], dict[str, Any]]:
    """What a snapshot was made of: its artefact names texts, teachers and layout, for old snapshots, too.

    Raises:
        _MaterialsGoneError: One of them is gone.
    """
    folder = workspace.artefacts / SNAPSHOTS_ASSET / tag
    if not all((folder / name).is_file() for name in (MANIFEST, REFERENCE)):
        raise _MaterialsGoneError(f"its artefact {folder} is gone")
    # Inputs by digest, not the recipe's current ones: the recipe may have changed since.
    node = Tracer(workspace).of_folder(folder)
    assert node.manifest is not None
    identity, inputs = node.manifest.identity, node.named_inputs
    columns = []
    layout = Layout.from_json(json.loads((folder / REFERENCE).read_text(encoding="utf-8"))["layout"])
    for name in layout.teachers:
        reference = read_reference(_folder_of(inputs.pop(teacher_asset(name))))
        vectors = reference.open(workspace)
        columns.append(TeacherColumn.of(name, layout.weight_of(name), vectors, layout.centres.get(name)))
    (corpus,) = inputs.values()  # a snapshot is made of teachers' vectors and one corpus
    lineage: dict[str, Any] = {
        "recipe": recipe,
        "asset": SNAPSHOTS_ASSET,
        "key": tag,
        "inputs": dict(identity.inputs),
    }
    # As it was: what a teacher takes by now decides the next snapshot.
    before = Snapshot.open(workspace, recipe, tag)
    lineage |= {LEFT_OUT: before.left_out.tolist()} if before.left_out.size else {}
    return before.of_corpus(CorpusTexts(_folder_of(corpus))), columns, lineage


def _folder_of(node: Node) -> Any:
    if node.folder is None:
        raise _MaterialsGoneError(f"the artefact {node.name} {node.digest[:12]} that it was made of is gone")
    return node.folder
