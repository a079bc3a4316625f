"""A teacher's vectors for a corpus: embed what is missing, and a reference to read them by."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from storage.workspace import Workspace

from stella_assets.core.devices import resolve_dtype
from stella_assets.core.manifest import Check
from stella_assets.core.models import model_digest
from stella_assets.core.step import Artefact, BuildContext, Result, Runner, Step
from stella_assets.corpus.build import corpus_step, read_texts
from stella_assets.corpus.read import CorpusTexts
from stella_assets.corpus.text import text_id
from stella_assets.recipe import LsaTeacher, Recipe, RecipeError, Teacher
from stella_assets.teachers.lsa import LsaModel, fit_lsa
from stella_assets.teachers.sentence_transformer import SentenceTransformerTeacher
from storage.database import to_keys
from storage.statistics import TEACHERS, write_table
from storage.vectors import PREFIX, VectorsByRole, VectorTable, stored_rows

CODE_VERSION = "2"
REFERENCE = "vectors.json"
TEACHERS_FILE = "teachers.parquet"
BLOCK_ROWS = 8192
PROBE_TEXTS = 128
"""Texts that the speed of a model is measured on."""
Role = str


class TeacherModel(Protocol):
    """What turns texts into unit vectors."""

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""

    def describe(self, role: Role) -> dict[str, Any]:
        """Everything that a vector depends on beside the text."""

    def fingerprint(self, role: Role) -> str:
        """Names what `describe` says."""

    def encode(self, texts: list[str], role: Role) -> np.ndarray:
        """Unit-norm vectors `[len(texts), dim]` float32."""

    def parameters(self) -> int:
        """How many there are."""


@dataclass(frozen=True)
class Reference:
    """What a `teacher_vectors` artefact passes on: names in the store, never the vectors.

    Attributes:
        dim: Dimensions.
        rows: Texts.
        fingerprints: The table for each role.
        digest: SHA-256 over ids and vectors in the order of the corpus.
    """

    dim: int
    rows: int
    fingerprints: dict[Role, str]
    digest: str


def teacher_step(recipe: Recipe, teacher: Teacher) -> Step:
    """The step that makes `teacher_vectors/<name>`."""
    return Step(
        recipe=recipe.name,
        name=f"teacher_vectors/{teacher.name}",
        code_version=CODE_VERSION,
        settings=teacher.settings("weight", "unit_rows", "licence", "model", "revision", "evaluation_prompts"),
        needs=(corpus_step(recipe),),
        sources=lambda _workspace: _what_it_loads(teacher),
        build=lambda context: _embed_corpus(teacher, context),
        present=_vectors_present,
    )


def _what_it_loads(teacher: Teacher) -> dict[str, str]:
    if isinstance(teacher, LsaTeacher):
        return {}
    return {"model": model_digest(teacher), "dtype": resolve_dtype(teacher.dtype)}


def open_model(teacher: Teacher, folder: Path) -> TeacherModel:
    """The teacher's model; `folder` is the artefact's, where a fitted teacher lies."""
    return LsaModel(folder) if isinstance(teacher, LsaTeacher) else SentenceTransformerTeacher(teacher)


def open_teacher(recipe: Recipe, name: str, workspace: Workspace) -> TeacherModel:
    """A recipe's teacher by name, to encode with.

    Raises:
        ValueError: The recipe has no such teacher, or it is a fitted one that was not fitted yet.
    """
    teachers = {teacher.name: teacher for teacher in recipe.teachers}
    if name not in teachers:
        raise RecipeError(f"recipe {recipe.name!r}: has no teacher {name!r}; it has {', '.join(teachers)}.")
    if not isinstance(teachers[name], LsaTeacher):
        return open_model(teachers[name], Path())
    artefact = Runner(workspace, logging.getLogger(__name__)).find(teacher_step(recipe, teachers[name]))
    if artefact is None:
        raise RecipeError(
            f"recipe {recipe.name!r}: teacher {name!r} is fitted to the corpus and was not yet. "
            f"Run `stella run {recipe.name} --select teacher_vectors/{name}` first."
        )
    return open_model(teachers[name], artefact.folder)


def _embed_corpus(teacher: Teacher, context: BuildContext) -> Result:
    texts = CorpusTexts(context.inputs["corpus"])
    if isinstance(teacher, LsaTeacher):
        columns = read_texts(context.inputs["corpus"], ["text", "split"]).to_pydict()
        training = [text for text, split in zip(columns["text"], columns["split"], strict=True) if split == "train"]
        fit_lsa(teacher, training, context.folder)
    model = open_model(teacher, context.folder)
    total = len(texts)
    context.workspace.require_space(
        total * model.dim * 2, f"teacher {teacher.name!r} with {total:,} texts of {model.dim} dims"
    )
    vectors = TeacherVectors(teacher, model, Reference(model.dim, total, fingerprints(model), ""), context.workspace)
    embedded = vectors.fill(texts, context.log)
    context.log.info(f"{teacher.name}: {embedded:,} texts embedded, {total - embedded:,} were there already")
    content, worst = vectors.digest(texts)
    probe = texts.take(np.arange(min(PROBE_TEXTS, total)), ["text"]).column("text").to_pylist()
    reference = Reference(model.dim, total, fingerprints(model), content)
    (context.folder / REFERENCE).write_text(json.dumps(asdict(reference), indent=1, sort_keys=True))
    _write_description(teacher, model, texts, context.folder / TEACHERS_FILE)
    return Result(
        metrics={
            "texts": total,
            "embedded_now": embedded,
            "dim": model.dim,
            "licence": teacher.licence,
            "kind": teacher.kind,
            "parameters": model.parameters(),
            "texts_per_second": measure_speed(lambda sample: model.encode(sample, "document"), probe),
        },
        checks=(
            Check(
                "vectors_are_unit_norm",
                worst < 2e-3,
                f"largest deviation of a norm from 1: {worst:.1e}",
                {"worst": worst},
            ),
        ),
        unhashed_files=(TEACHERS_FILE,),  # it names the model's folder, which decides nothing
    )


def measure_speed(encode: Callable[[list[str]], object], texts: list[str]) -> float:
    """Texts a second, after some to warm up."""
    encode(texts[:16])
    started = time.monotonic()
    encode(texts)
    return round(len(texts) / (time.monotonic() - started), 1)


def fingerprints(model: TeacherModel) -> dict[Role, str]:
    """The model's fingerprint for each role that a text can have."""
    return {role: model.fingerprint(role) for role in ("document", "query")}


def _write_description(teacher: Teacher, model: TeacherModel, texts: CorpusTexts, path: Path) -> None:
    roles = np.concatenate([b.column(0).to_numpy(zero_copy_only=False) for b in texts.scan(["role"])])
    rows = [
        {
            "teacher": teacher.name,
            "role": role,
            "fingerprint": fingerprint,
            "licence": teacher.licence,
            "texts": int((roles == role).sum()),
            **{name: None if value is None else str(value) for name, value in model.describe(role).items()},
            "dim": model.dim,
        }
        for role, fingerprint in fingerprints(model).items()
    ]
    write_table(path, TEACHERS, [{name: row.get(name) for name in TEACHERS.names} for row in rows])


def read_reference(artefact: Artefact) -> Reference:
    """The reference that a `teacher_vectors` artefact holds."""
    return Reference(**json.loads((artefact.folder / REFERENCE).read_text()))


def _vectors_present(artefact: Artefact, workspace: Workspace) -> bool:
    """Whether the store still holds as many vectors as the artefact speaks of."""
    reference = read_reference(artefact)
    return sum(stored_rows(workspace, name) for name in set(reference.fingerprints.values())) >= reference.rows


class TeacherVectors:
    """A teacher's vectors by text; a text that it has not seen is embedded once and kept."""

    def __init__(self, teacher: Teacher, model: TeacherModel, reference: Reference, workspace: Workspace) -> None:
        self.teacher = teacher
        self.dim = reference.dim
        self.fingerprints = reference.fingerprints
        self._model = model
        self._stored = VectorsByRole(
            workspace,
            reference.fingerprints,
            reference.dim,
            lambda role: {"name": teacher.name, **model.describe(role)},
        )

    @classmethod
    def open(cls, teacher: Teacher, artefact: Artefact, workspace: Workspace) -> TeacherVectors:
        """The vectors behind a `teacher_vectors` artefact."""
        return cls(teacher, open_model(teacher, artefact.folder), read_reference(artefact), workspace)

    def tables(self) -> set[str]:
        """The tables that hold the vectors."""
        return {PREFIX + fingerprint for fingerprint in self.fingerprints.values()}

    def count_missing(self, texts: CorpusTexts) -> int:
        """How many texts of a corpus have no vector."""
        return sum(len(self._stored.table(role).missing(keys)) for role, keys, _ in _by_role(texts))

    def fill(self, texts: CorpusTexts, log: logging.Logger | logging.LoggerAdapter) -> int:
        """Embed the texts of a corpus that have no vector yet; says how many they were."""
        return sum(self._fill_role(texts, role, keys, at, log) for role, keys, at in _by_role(texts))

    def _fill_role(
        self,
        texts: CorpusTexts,
        role: Role,
        keys: np.ndarray,
        positions: np.ndarray,
        log: logging.Logger | logging.LoggerAdapter,
    ) -> int:
        def read(at: np.ndarray) -> list[str]:
            return texts.take(positions[at], ["text"]).column("text").to_pylist()

        def encode(unit: list[str]) -> np.ndarray:
            return self._model.encode(unit, role)

        return self._stored.table(role).fill(keys, read, encode, self.teacher.unit_rows, self._say_waiting(log))

    def _say_waiting(self, log: logging.Logger | logging.LoggerAdapter) -> Callable[[], None]:
        said: list[bool] = []

        def on_wait() -> None:
            if not said:
                log.info(
                    f"{self.teacher.name}: another run is embedding with this teacher; waiting for its unit, then "
                    "going on with what is missing."
                )
                said.append(True)

        return on_wait

    def digest(self, texts: CorpusTexts) -> tuple[str, float]:
        """SHA-256 over ids and vectors in the order of the corpus, and the largest deviation of a norm from 1."""
        content, worst = hashlib.sha256(), 0.0
        for batch in texts.scan(["id", "role"]):
            ids, roles = batch.column("id").to_pylist(), batch.column("role").to_pylist()
            block = self.fetch(ids, roles)
            worst = max(worst, float(np.abs(np.linalg.norm(block.astype(np.float32), axis=1) - 1).max()))
            content.update("".join(ids).encode())
            content.update(block.tobytes())
        return content.hexdigest()[:32], worst

    def fetch(self, ids: Sequence[str], roles: Sequence[Role]) -> np.ndarray:
        """Vectors that are there, `[len(ids), dim]` float16."""
        return self._stored.fetch(ids, roles)

    def compute(self, texts: list[str], role: Role) -> np.ndarray:
        """Vectors of texts, `[len(texts), dim]` float32, computed and not stored: to check what is stored."""
        return self._model.encode(texts, role)

    def embed(self, texts: Sequence[str], role: Role) -> np.ndarray:
        """Vectors of any texts, `[len(texts), dim]` float16; the missing ones are computed and stored."""
        if role not in self._stored.fingerprints:
            self._stored.fingerprints[role] = self._model.fingerprint(role)
        return fill_and_fetch(self._stored.table(role), texts, lambda batch: self._model.encode(batch, role))


def fill_and_fetch(table: VectorTable, texts: Sequence[str], encode: Callable[[list[str]], np.ndarray]) -> np.ndarray:
    """What a table has of some texts, `[len(texts), dim]` float16; what is missing is computed and stored."""
    unique = {text_id(text): text for text in texts}
    ordered = sorted(unique)
    table.fill(ordered, lambda at: [unique[ordered[i]] for i in at], encode)
    return table.fetch([text_id(text) for text in texts])


def _by_role(texts: CorpusTexts) -> Iterator[tuple[Role, np.ndarray, np.ndarray]]:
    """For each role in a corpus: the keys of its texts, and their positions."""
    keys = np.concatenate([to_keys(batch.column(0)) for batch in texts.scan(["id"])])
    roles = np.concatenate([b.column(0).to_numpy(zero_copy_only=False) for b in texts.scan(["role"])])
    for role in sorted(set(roles)):
        positions = np.flatnonzero(roles == role)
        yield role, keys[positions], positions
