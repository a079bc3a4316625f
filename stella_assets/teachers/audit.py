"""The audit of the vector store: damaged files and rows, texts without a vector, and vectors of other texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from stella_assets.core.intact import DamagedArtefactError, open_intact
from stella_assets.core.runner import Runner
from stella_assets.core.step import Step
from stella_assets.corpus.read import CorpusTexts
from stella_assets.storage.artefacts import MANIFEST
from stella_assets.storage.database import table_names
from stella_assets.storage.errors import DamageError, VectorError
from stella_assets.storage.integrity import Damage, TableReport, table_bytes, verify_table
from stella_assets.storage.journal_repair import damaged_journals
from stella_assets.teachers.refusal import Texts
from stella_assets.teachers.tables import VECTORS
from stella_assets.teachers.teacher_vectors import TeacherVectors

JOURNALS = "journals"
"""In place of a table, of damage to what services have answered."""
SAMPLE_ROWS = 64
# Room for bfloat16 and for other kernels, none for the vector of another text.
MIN_COSINE = 0.999


@dataclass(frozen=True)
class AuditedRecipe:
    """A recipe whose texts and teachers are known: what it needs is checked, and can be computed again.

    Attributes:
        name: Of the recipe.
        corpus: The step that makes its corpus.
        teachers: By teacher, the step that makes its vectors.
    """

    name: str
    corpus: Step[CorpusTexts]
    teachers: Mapping[str, Step[TeacherVectors]]


@dataclass(frozen=True)
class Comparison:
    """A random sample of stored vectors, compared with what the teacher makes of the same texts now.

    Attributes:
        recipe: Name of the recipe.
        teacher: Name of the teacher.
        sampled: Vectors that were compared.
        least_cosine: The smallest cosine of a stored vector with its new one.
    """

    recipe: str
    teacher: str
    sampled: int
    least_cosine: float


@dataclass
class Audit:
    """What was found: each table, and what each recipe needs.

    Attributes:
        tables: One report per table of the store.
        comparisons: One per recipe and teacher whose tables are whole.
        missing: Texts without a vector, and vectors that are not those of their texts.
        lost_answers: Journals of services with records that are not as they were written. The tables may have their
            vectors; what they lack is asked for again.
    """

    tables: list[TableReport]
    comparisons: list[Comparison]
    missing: list[Damage]
    lost_answers: list[Damage] = field(default_factory=list)

    @property
    def damages(self) -> list[Damage]:
        """All that is wrong."""
        return [damage for table in self.tables for damage in table.damages] + self.missing + self.lost_answers


def encoded_teachers(recipe: AuditedRecipe, runner: Runner) -> Iterator[tuple[TeacherVectors, CorpusTexts]]:
    """The recipe's teachers that have encoded its corpus, whether their vectors are whole or damaged.

    Args:
        recipe: Its corpus may be still to be made: then it has no such teachers.
        runner: Finds the artefacts.

    Yields:
        A teacher's vectors, and the texts of the corpus.
    """
    corpus = runner.find(recipe.corpus)
    if corpus is None:
        return
    texts = recipe.corpus.read(corpus, runner.workspace)
    for step in recipe.teachers.values():
        # Not `runner.find`: it asks `is_available`, and takes an artefact that lost vectors for missing.
        folder = runner.store.path(step.stored_as, runner.identity(step).key)
        if (folder / MANIFEST).is_file():
            # A damaged artefact says nothing of its vectors; the next run makes it again.
            with suppress(DamagedArtefactError):
                yield step.read(open_intact(runner.workspace, folder), runner.workspace), texts


class Auditor:
    """Verifies a store.

    Args:
        recipes: Recipes whose needs are checked, too.
        runner: Has the workspace and the device. It remembers what it found: make a new one after a repair.
        sample: Vectors to recompute for each teacher of each recipe.
        seed: Of the sample.
        paid: Vectors to recompute for each teacher that is paid; by default none, as digests tell of damage.
    """

    def __init__(
        self,
        recipes: Sequence[AuditedRecipe],
        runner: Runner,
        sample: int = SAMPLE_ROWS,
        seed: int = 0,
        paid: int = 0,
    ) -> None:
        self._recipes = recipes
        self._runner = runner
        self._sample = sample
        self._seed = seed
        self._paid = paid

    def bytes(self) -> int:
        """Bytes that `verify` reads."""
        workspace = self._runner.workspace
        return sum(table_bytes(workspace, name) for name in table_names(workspace))

    def verify(self, on_bytes: Callable[[int], None] = lambda _bytes: None) -> Audit:
        """Verify every table, that each recipe's texts have vectors, and a random sample by recomputing it.

        Args:
            on_bytes: Called with a number of bytes as they are verified; `bytes` says how many there are.

        Returns:
            All that was found; nothing is changed.

        Raises:
            StoreError: The store cannot be read at all.
        """
        workspace = self._runner.workspace
        tables = [verify_table(workspace, name, on_bytes) for name in table_names(workspace)]
        answers = [
            Damage(JOURNALS, each.file.relative_to(workspace.root).as_posix(), each.what, each.rows)
            for each in damaged_journals(workspace.api)
        ]
        audit = Audit(tables, [], [], answers)
        damaged = {table.table for table in audit.tables if table.damages}
        for recipe in self._recipes:
            for vectors, texts in encoded_teachers(recipe, self._runner):
                audit.missing += _find_missing(recipe, vectors, texts)
                # Reading damaged files raises an error of Lance, or gives vectors that say nothing about the teacher.
                if self._sampled(vectors) and not damaged & vectors.tables():
                    self._compare(recipe, vectors, vectors.taken(texts), audit)
        return audit

    def _sampled(self, vectors: TeacherVectors) -> int:
        """How many vectors of a teacher are computed again; those that cost money, only where a person asked for it."""
        return self._paid if vectors.teacher.paid else self._sample

    def _compare(self, recipe: AuditedRecipe, vectors: TeacherVectors, texts: Texts, audit: Audit) -> None:
        random = np.random.default_rng(self._seed)
        # `take` of a corpus needs ascending positions.
        sampled = min(self._sampled(vectors), len(texts))
        positions = np.sort(random.choice(len(texts), sampled, replace=False))
        rows = texts.take(positions, ["id", "text", "role"]).to_pylist()
        try:
            stored = vectors.fetch([row["id"] for row in rows], [row["role"] for row in rows]).astype(np.float32)
        except VectorError:  # already among the missing
            return
        least, model = 1.0, vectors.model(self._runner.compute.on_behalf_of(recipe.name))
        for role in sorted({row["role"] for row in rows}):
            chosen = [i for i, row in enumerate(rows) if row["role"] == role]
            made = vectors.teacher.encode_again(model, [rows[i]["text"] for i in chosen], role)
            # Stored vectors are of unit norm only up to float16; those of `encode` are in float32.
            cosines = np.einsum("nd,nd->n", stored[chosen], made) / np.linalg.norm(stored[chosen], axis=1)
            # numpy's minimum is NaN where a cosine is; Python's would pass over it.
            least = float(np.minimum(least, cosines.min()))
            table = VECTORS + vectors.fingerprints[role]
            for i, cosine in zip(chosen, cosines, strict=True):
                # Not `<`: NaN is below nothing, and must count as wrong.
                if not cosine >= MIN_COSINE:
                    what = f"the stored vector is not that of its text: cosine {cosine:.4f} with the one computed now"
                    audit.missing.append(Damage(table, f"id {rows[i]['id']}", what, 1))
        audit.comparisons.append(Comparison(recipe.name, vectors.teacher.name, len(rows), round(least, 6)))


def _find_missing(recipe: AuditedRecipe, vectors: TeacherVectors, texts: CorpusTexts) -> list[Damage]:
    try:
        missing = vectors.missing_by_table(texts)
    except (DamageError, VectorError):  # the table's own report says it
        return []
    what = f"of {len(texts):,} texts of recipe {recipe.name!r} have no vector of {vectors.teacher.name}"
    return [Damage(table, "rows", f"{count:,} {what}", count) for table, count in sorted(missing.items()) if count]
