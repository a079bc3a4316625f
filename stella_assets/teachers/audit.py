"""The audit of the store: what is damaged or missing, and how it is made again."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from storage.workspace import Workspace

from stella_assets.core.manifest import Manifest
from stella_assets.core.step import Artefact, Runner
from stella_assets.corpus.build import corpus_step
from stella_assets.corpus.read import CorpusTexts
from stella_assets.recipe import Recipe
from stella_assets.teachers.encode import REFERENCE, Reference, TeacherVectors, read_reference, teacher_step
from storage.artefacts import MANIFEST, finished
from storage.database import DamageError, open_table, table_names, to_keys
from storage.integrity import (
    Damage,
    TableReport,
    drop_damaged,
    snapshot_tables,
    table_bytes,
    teacher_tables,
    verify_table,
)
from storage.snapshot import TABLE, snapshot_tags
from storage.snapshot_writer import SnapshotWriter, TeacherColumn
from storage.vectors import PREFIX, VectorError, VectorsByRole

SAMPLE_ROWS = 64
LEAST_COSINE = 0.999


@dataclass(frozen=True)
class Comparison:
    """A random sample of stored vectors against what the teacher makes of the same texts now."""

    recipe: str
    teacher: str
    sampled: int
    least_cosine: float


@dataclass
class Audit:
    """What was found: each table, and each recipe's needs."""

    tables: list[TableReport]
    comparisons: list[Comparison]
    missing: list[Damage]

    @property
    def damages(self) -> list[Damage]:
        """All that is wrong."""
        return [damage for table in self.tables for damage in table.damages] + self.missing


class Auditor:
    """Verifies and repairs a store.

    Args:
        workspace: Where it is.
        recipes: Recipes whose texts and teachers are known; what they need is checked and can be computed again.
        log: For people.
        sample: Vectors to recompute for each teacher of each recipe.
        seed: Of the sample.
    """

    def __init__(
        self,
        workspace: Workspace,
        recipes: Sequence[Recipe],
        log: logging.Logger,
        sample: int = SAMPLE_ROWS,
        seed: int = 0,
    ) -> None:
        self.workspace = workspace
        self._recipes = recipes
        self._log = log
        self._sample = sample
        self._seed = seed
        self._runner = Runner(workspace, log)

    def bytes(self) -> int:
        """Bytes that `verify` reads."""
        return sum(table_bytes(self.workspace, name) for name in table_names(self.workspace))

    def verify(self, on_bytes: Callable[[int], None] = lambda _bytes: None) -> Audit:
        """Verify every table, that each recipe's texts have vectors, and a random sample by recomputing it."""
        audit = Audit([verify_table(self.workspace, name, on_bytes) for name in table_names(self.workspace)], [], [])
        damaged = {table.table for table in audit.tables if table.damages}
        for recipe in self._recipes:
            for vectors, texts in self._teachers(recipe):
                audit.missing += self._find_missing(recipe, vectors, texts)
                if not damaged & {PREFIX + name for name in vectors.fingerprints.values()}:
                    self._compare(recipe, vectors, texts, audit)
        return audit

    def _teachers(self, recipe: Recipe) -> list[tuple[TeacherVectors, CorpusTexts]]:
        """The recipe's teachers that have embedded its corpus, damaged or not."""
        corpus = self._runner.find(corpus_step(recipe))
        if corpus is None:
            return []
        found = []
        for teacher in recipe.teachers:
            step = teacher_step(recipe, teacher)
            folder = self._runner.store.path(step.name, self._runner.identity(step).key)
            if (folder / MANIFEST).is_file() and (folder / REFERENCE).is_file():
                artefact = Artefact(step.name, folder, Manifest.read(folder / MANIFEST))
                found.append((TeacherVectors.open(teacher, artefact, self.workspace), CorpusTexts(corpus)))
        return found

    def _find_missing(self, recipe: Recipe, vectors: TeacherVectors, texts: CorpusTexts) -> list[Damage]:
        try:
            missing = vectors.count_missing(texts)
        except (DamageError, VectorError):  # the table's own report says it
            return []
        if not missing:
            return []
        what = f"{missing:,} of {len(texts):,} texts of recipe {recipe.name!r} have no vector of {vectors.teacher.name}"
        return [Damage(", ".join(sorted(vectors.tables())), "rows", what, missing)]

    def _compare(self, recipe: Recipe, vectors: TeacherVectors, texts: CorpusTexts, audit: Audit) -> None:
        random = np.random.default_rng(self._seed)
        positions = np.sort(random.choice(len(texts), min(self._sample, len(texts)), replace=False))
        rows = texts.take(positions, ["id", "text", "role"]).to_pylist()
        try:
            stored = vectors.fetch([row["id"] for row in rows], [row["role"] for row in rows]).astype(np.float32)
        except VectorError:  # already among the missing
            return
        least = 1.0
        for role in sorted({row["role"] for row in rows}):
            chosen = [i for i, row in enumerate(rows) if row["role"] == role]
            made = vectors.compute([rows[i]["text"] for i in chosen], role)
            cosines = np.einsum("nd,nd->n", stored[chosen], made) / np.linalg.norm(stored[chosen], axis=1)
            least = min(least, float(cosines.min()))
            table = PREFIX + vectors.fingerprints[role]
            for i, cosine in zip(chosen, cosines, strict=True):
                if not cosine >= LEAST_COSINE:
                    what = f"the stored vector is not that of its text: cosine {cosine:.4f} with the one computed now"
                    audit.missing.append(Damage(table, f"id {rows[i]['id']}", what, 1))
        audit.comparisons.append(Comparison(recipe.name, vectors.teacher.name, len(rows), round(least, 6)))

    def repair(self, audit: Audit) -> list[str]:
        """Take out what is damaged and make just that again. Says what was done, and what could not be."""
        done: list[str] = []
        by_table: dict[str, list[Damage]] = {}
        for damage in audit.damages:
            by_table.setdefault(damage.table, []).append(damage)
        for name in teacher_tables(list(by_table)):
            damages = [self._unit_of(damage) for damage in by_table[name]]
            rows = drop_damaged(self.workspace, name, damages, self._say_waiting)
            done.append(f"{name}: took out units of {rows:,} rows")
        for recipe in self._recipes:
            for vectors, texts in self._teachers(recipe):
                if embedded := vectors.fill(texts, self._log):
                    done.append(f"{recipe.name}/{vectors.teacher.name}: embedded {embedded:,} texts again")
                    done += self._say_if_different(recipe, vectors, texts)
        for name in snapshot_tables(list(by_table)):
            done += self._repair_snapshots(name.removesuffix(TABLE), by_table[name])
        return done

    def _say_waiting(self) -> None:
        self._log.info("another run is writing to the store; waiting for it.")

    def _unit_of(self, damage: Damage) -> Damage:
        """A vector that is not its text's puts its whole unit in doubt."""
        if not damage.place.startswith("id "):
            return damage
        dataset = open_table(self.workspace, damage.table)
        key = to_keys([damage.place.removeprefix("id ")])
        for fragment in dataset.get_fragments():
            if any(np.isin(key, to_keys(batch.column(0))).any() for batch in fragment.to_batches(columns=["id"])):
                return Damage(damage.table, f"data/{fragment.data_files()[0].path}", damage.what, damage.rows)
        return damage

    def _say_if_different(self, recipe: Recipe, vectors: TeacherVectors, texts: CorpusTexts) -> list[str]:
        step = teacher_step(recipe, vectors.teacher)
        artefact = self._runner.find(step)
        if artefact is None or vectors.digest(texts)[0] == read_reference(artefact).digest:
            return []
        return [
            f"{recipe.name}/{vectors.teacher.name}: the vectors differ in their last bits from those that were lost; "
            "snapshots keep the old ones, and the next one has the new"
        ]

    def _repair_snapshots(self, recipe: str, damages: list[Damage]) -> list[str]:
        done = []
        places = {damage.place for damage in damages}
        for tag in sorted({tag for damage in damages for tag in damage.tags}):
            try:
                texts, columns, lineage = self._materials(recipe, tag)
                if any(damage.place == "_versions" and tag in damage.tags for damage in damages):
                    self._forget(recipe, tag)
                written = SnapshotWriter(self.workspace, recipe).write(tag, texts, columns, lineage, damaged=places)
                rewritten = f"{written.rows_written:,} rows and the damaged columns written again"
                done.append(f"{recipe}{TABLE} {tag}: {rewritten}")
            except (VectorError, DamageError, FileNotFoundError) as error:
                done.append(f"{recipe}{TABLE} {tag}: cannot be repaired: {error}")
        return done

    def _forget(self, recipe: str, tag: str) -> None:
        """Take away a tag whose version cannot be read."""
        if tag in snapshot_tags(self.workspace, recipe):
            open_table(self.workspace, recipe + TABLE).tags.delete(tag)

    def _materials(self, recipe: str, tag: str) -> tuple[CorpusTexts, list[TeacherColumn], dict[str, Any]]:
        """What a snapshot was made of: its artefact names texts, teachers and weights, for old snapshots, too.

        Raises:
            FileNotFoundError: One of them is gone.
        """
        manifest = Manifest.read(self.workspace.artefacts / "concatenated_vectors" / tag / MANIFEST)
        identity = manifest.identity
        columns = []
        for name, weight in zip(identity.settings["teachers"], identity.settings["weights"], strict=True):
            folder = self._artefact(f"teacher_vectors/{name}", identity.inputs[f"teacher_vectors/{name}"])
            reference = Reference(**json.loads((folder / REFERENCE).read_text()))
            vectors = VectorsByRole(self.workspace, reference.fingerprints, reference.dim)
            columns.append(TeacherColumn(name, vectors.dim, weight, vectors.fingerprints, vectors.fetch))
        folder = self._artefact("corpus", identity.inputs["corpus"])
        corpus = Artefact("corpus", folder, Manifest.read(folder / MANIFEST))
        lineage = {"recipe": recipe, "asset": "concatenated_vectors", "key": tag, "inputs": dict(identity.inputs)}
        return CorpusTexts(corpus), columns, lineage

    def _artefact(self, name: str, digest: str) -> Path:
        for folder in finished(self.workspace, name):
            if Manifest.read(folder / MANIFEST).digest == digest:
                return folder
        raise FileNotFoundError(f"the artefact {name} {digest[:12]} that it was made of is gone")
