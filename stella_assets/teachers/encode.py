"""A teacher's vectors for a corpus: embed what is missing, and a reference to read them by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from stella_assets.corpus.build import corpus_step, read_texts
from stella_assets.corpus.text import text_id
from stella_assets.manifest import Check
from stella_assets.models import model_digest
from stella_assets.recipe import LsaTeacher, Recipe, Teacher
from stella_assets.step import Artefact, Result, Step, Workbench
from stella_assets.teachers.device import resolve_dtype
from stella_assets.teachers.lsa import LsaModel, fit_lsa
from stella_assets.teachers.sentence_transformer import SentenceTransformerTeacher
from storage.home import Home
from storage.vectors import VectorCache, stored_rows

CODE_VERSION = "1"
REFERENCE = "vectors.json"
BLOCK_ROWS = 8192


class TeacherModel(Protocol):
    """What turns texts into unit vectors."""

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""

    def fingerprint(self, role: str) -> str:
        """Names everything that a vector depends on beside the text."""

    def encode(self, texts: list[str], role: str) -> np.ndarray:
        """Unit-norm vectors `[len(texts), dim]` float32."""


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
    fingerprints: dict[str, str]
    digest: str


def teacher_step(recipe: Recipe, teacher: Teacher) -> Step:
    """The step that makes `teacher_vectors/<name>`."""
    return Step(
        recipe=recipe.name,
        name=f"teacher_vectors/{teacher.name}",
        code_version=CODE_VERSION,
        settings=teacher.settings("weight", "unit_rows", "licence", "model", "revision"),
        needs=(corpus_step(recipe),),
        sources=lambda: _what_it_loads(teacher),
        build=lambda bench: _embed_corpus(teacher, bench),
        present=_vectors_present,
    )


def _what_it_loads(teacher: Teacher) -> dict[str, str]:
    if isinstance(teacher, LsaTeacher):
        return {}
    return {"model": model_digest(teacher), "dtype": resolve_dtype(teacher.dtype)}


def _open(teacher: Teacher, folder: Path) -> TeacherModel:
    return LsaModel(folder) if isinstance(teacher, LsaTeacher) else SentenceTransformerTeacher(teacher)


def _embed_corpus(teacher: Teacher, bench: Workbench) -> Result:
    texts = read_texts(bench.inputs["corpus"], ["id", "text", "role", "split"]).to_pydict()
    if isinstance(teacher, LsaTeacher):
        training = [text for text, split in zip(texts["text"], texts["split"], strict=True) if split == "train"]
        fit_lsa(teacher, training, bench.folder)
    model = _open(teacher, bench.folder)
    total = len(texts["id"])
    bench.home.require_space(
        total * model.dim * 2, f"teacher {teacher.name!r} with {total:,} texts of {model.dim} dims"
    )
    embedded = 0
    for role in sorted(set(texts["role"])):
        rows = [i for i, r in enumerate(texts["role"]) if r == role]
        cache = VectorCache(bench.home, model.fingerprint(role), model.dim)
        embedded += cache.fill(
            [texts["id"][i] for i in rows],
            [texts["text"][i] for i in rows],
            lambda batch, role=role: model.encode(batch, role),  # type: ignore[misc]
            teacher.unit_rows,
        )
    bench.log.info(f"{teacher.name}: {embedded:,} texts embedded, {total - embedded:,} were there already")
    fingerprints = {role: model.fingerprint(role) for role in ("document", "query")}
    vectors = TeacherVectors(teacher, model, Reference(model.dim, total, fingerprints, ""), bench.home)
    content = hashlib.sha256()
    worst = 0.0
    for start in range(0, total, BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        block = vectors.fetch(texts["id"][part], texts["role"][part])
        worst = max(worst, float(np.abs(np.linalg.norm(block.astype(np.float32), axis=1) - 1).max()))
        content.update("".join(texts["id"][part]).encode())
        content.update(block.tobytes())
    reference = Reference(model.dim, total, fingerprints, content.hexdigest()[:32])
    (bench.folder / REFERENCE).write_text(json.dumps(reference.__dict__, indent=1, sort_keys=True))
    return Result(
        facts={
            "texts": total,
            "embedded_now": embedded,
            "dim": model.dim,
            "licence": teacher.licence,
            "kind": teacher.kind,
        },
        checks=(Check("vectors_are_unit_norm", worst < 2e-3, f"largest deviation of a norm from 1: {worst:.1e}"),),
    )


def read_reference(artefact: Artefact) -> Reference:
    """The reference that a `teacher_vectors` artefact holds."""
    return Reference(**json.loads((artefact.folder / REFERENCE).read_text()))


def _vectors_present(artefact: Artefact, home: Home) -> bool:
    """Whether the store still holds as many vectors as the artefact speaks of."""
    reference = read_reference(artefact)
    return sum(stored_rows(home, name) for name in set(reference.fingerprints.values())) >= reference.rows


class TeacherVectors:
    """A teacher's vectors by text; a text that it has not seen is embedded once and kept."""

    def __init__(self, teacher: Teacher, model: TeacherModel, reference: Reference, home: Home) -> None:
        self.teacher = teacher
        self.dim = reference.dim
        self._model = model
        tables = {name: VectorCache(home, name, reference.dim) for name in set(reference.fingerprints.values())}
        self._caches = {role: tables[name] for role, name in reference.fingerprints.items()}

    @classmethod
    def open(cls, teacher: Teacher, artefact: Artefact, home: Home) -> TeacherVectors:
        """The vectors behind a `teacher_vectors` artefact."""
        return cls(teacher, _open(teacher, artefact.folder), read_reference(artefact), home)

    def fetch(self, ids: Sequence[str], roles: Sequence[str]) -> np.ndarray:
        """Vectors that are there, `[len(ids), dim]` float16."""
        vectors = np.empty((len(ids), self.dim), dtype=np.float16)
        for role in set(roles):
            rows = [i for i, r in enumerate(roles) if r == role]
            vectors[rows] = self._caches[role].fetch([ids[i] for i in rows])
        return vectors

    def embed(self, texts: Sequence[str], role: str) -> np.ndarray:
        """Vectors of any texts, `[len(texts), dim]` float16; the missing ones are computed and stored."""
        ids = [text_id(text) for text in texts]
        unique = dict(zip(ids, texts, strict=True))
        self._caches[role].fill(list(unique), list(unique.values()), lambda batch: self._model.encode(batch, role))
        return self._caches[role].fetch(ids)
