"""A teacher's vectors for a corpus: what has no vector yet is encoded, everything else is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stella_assets.core.devices import Compute
from stella_assets.core.engine import LocalEngine
from stella_assets.core.errors import UserError
from stella_assets.core.progress import progress_bar
from stella_assets.core.step import Artefact, Log
from stella_assets.corpus.dropped import read_dropped
from stella_assets.corpus.read import CorpusTexts
from stella_assets.corpus.text import text_id
from stella_assets.storage.errors import DamageError
from stella_assets.storage.keyed_table import KeyedTable
from stella_assets.storage.keys import Keys, Positions, to_keys
from stella_assets.storage.table_files import require_whole
from stella_assets.storage.unit_writer import WrittenUnit
from stella_assets.storage.units import UNIT_ROWS
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.forecast import Forecast
from stella_assets.teachers.kinds.base import Role, TeacherConfig, TeacherModel, Wanted
from stella_assets.teachers.known_vectors import require_examined, require_known
from stella_assets.teachers.refusal import RefusedTextsError, Texts, TextsWithout
from stella_assets.teachers.roles import ROLES, Places, texts_by_role
from stella_assets.teachers.tables import VECTORS
from stella_assets.teachers.vectors import VectorsByRole, stored_rows
from stella_assets.teachers.worker import EncodeUnit, EncodeWorker

REFERENCE = "vectors.json"
BLOCK_ROWS = 8192
"""Vectors in memory at a time, when those of a corpus are read."""


@dataclass(frozen=True)
class Reference:
    """What an artefact of a teacher's vectors passes on: names in the store, never the vectors.

    Attributes:
        dim: Dimensions.
        rows: Texts with a vector.
        fingerprints: The table for each role.
        digest: First 128 bits of the SHA-256 over ids and vectors in the order of the corpus, in hexadecimal.
    """

    dim: int
    rows: int
    fingerprints: dict[Role, str]
    digest: str

    def open(self, workspace: Workspace) -> VectorsByRole:
        """The stored vectors, for reading."""
        return VectorsByRole(workspace, self.fingerprints, self.dim)


def read_reference(folder: Path) -> Reference:
    """The reference in the folder of an artefact of a teacher's vectors."""
    return Reference(**json.loads((folder / REFERENCE).read_text(encoding="utf-8")))


def has_vectors(artefact: Artefact, workspace: Workspace) -> bool:
    """Whether the store still holds as many vectors as the artefact says.

    Raises:
        DamageError: Files of them are not as they were written.
    """
    reference = read_reference(artefact.folder)
    # Counts only, so it is quick. A set: roles without prompts of their own share a table.
    names = set(reference.fingerprints.values())
    for name in names:
        require_whole(workspace, VECTORS + name)
    return sum(stored_rows(workspace, name) for name in names) >= reference.rows


def fingerprints(model: TeacherModel) -> dict[Role, str]:
    """The model's fingerprint for each role that a text of a corpus can have."""
    return {role: model.fingerprint(role) for role in ROLES}


class TeacherVectors:
    """A teacher's vectors by text. A text that it has not seen is encoded once and kept.

    Reading needs no model. What encodes takes `compute`, and opens the model when it is first needed.

    Args:
        teacher: The teacher's settings.
        folder: Of its artefact; a fitted teacher is there.
        reference: Names in the store.
        workspace: Where the store is.
        worker: The teacher opened already, so that it is not loaded twice.

    Example:
        >>> vectors = TeacherVectors.open(teacher, artefact, workspace)
        >>> vectors.embed(["how do I sort a list?"], "query", Compute()).shape == (1, vectors.dim)
        True
    """

    def __init__(
        self,
        teacher: TeacherConfig,
        folder: Path,
        reference: Reference,
        workspace: Workspace,
        worker: EncodeWorker | None = None,
    ) -> None:
        self.teacher = teacher
        self.dim = reference.dim
        self._worker = worker or EncodeWorker(teacher, folder)
        self._folder = folder
        self._workspace = workspace
        self._described: TeacherModel | None = None
        self._compared: set[str] = set()
        self._stored = VectorsByRole(workspace, reference.fingerprints, reference.dim, self._describe)

    @classmethod
    def open(cls, teacher: TeacherConfig, artefact: Artefact, workspace: Workspace) -> TeacherVectors:
        """The vectors behind an artefact."""
        return cls(teacher, artefact.folder, read_reference(artefact.folder), workspace)

    @property
    def fingerprints(self) -> dict[Role, str]:
        """The fingerprint of each role that was asked for."""
        return self._stored.fingerprints

    def model(self, compute: Compute) -> TeacherModel:
        """The teacher's model on a device."""
        return self._worker.model(compute)

    def tables(self) -> set[str]:
        """Names of the tables that hold the vectors."""
        return {VECTORS + fingerprint for fingerprint in self.fingerprints.values()}

    def refused(self, role: Role) -> dict[str, str]:
        """Why the teacher does not take texts, by id: what it says if it is open, else what its artefact says."""
        if self._described is not None:
            return dict(self.teacher.refused_texts(self._described, role))
        rows = read_dropped(self._folder).select("id", "role", "detail").collect()
        return {key: detail for key, of, detail in rows.iter_rows() if of == role}

    def left_out(self, texts: CorpusTexts) -> Positions:
        """Positions of the texts of a corpus that the teacher does not take, ascending."""
        refused = {role: to_keys(sorted(self.refused(role))) for role in ROLES}
        if not any(map(len, refused.values())):  # as nearly always: the keys need not be read
            return np.empty(0, dtype=np.int64)
        found = [places[np.isin(keys, refused[role])] for role, keys, places in texts_by_role(texts)]
        return np.sort(np.concatenate(found)).astype(np.int64)

    def taken(self, texts: CorpusTexts) -> Texts:
        """The texts of a corpus without those that the teacher does not take."""
        left_out = self.left_out(texts)
        return TextsWithout(texts, left_out) if left_out.size else texts

    def forecast(self, texts: CorpusTexts, compute: Compute) -> Forecast | None:
        """What it would cost to embed a corpus, for a teacher that costs money. Nothing is sent.

        Args:
            texts: The corpus.
            compute: What the teacher is opened with.
        """
        if not self.teacher.paid:
            return None
        model = self._open(compute)
        self.fingerprints.update(fingerprints(model))  # another model may have answered since
        stored = {role: self._stored.table(role) for role in ROLES}
        return self.teacher.forecast(model, texts, stored)

    def count_missing(self, texts: CorpusTexts) -> int:
        """How many texts of a corpus have no vector, without those that the teacher does not take."""
        return sum(self.missing_by_table(texts).values())

    def missing_by_table(self, texts: CorpusTexts) -> dict[str, int]:
        """How many texts of a corpus have no vector, by the name of the table that lacks them."""
        missing: dict[str, int] = {}
        for role, keys, _ in texts_by_role(texts):
            # Roles without prompts of their own share a table.
            table = self._stored.table(role)
            lacks = table.missing(keys)
            refused = to_keys(sorted(self.refused(role))) if lacks.size else keys[:0]
            lacking = int((~np.isin(keys[lacks], refused)).sum()) if refused.size else len(lacks)
            missing[table.name] = missing.get(table.name, 0) + lacking
        return missing

    def fill(self, texts: CorpusTexts, compute: Compute, log: Log) -> int:
        """Encode the texts of a corpus that have no vector yet, by the engine of `compute`.

        Args:
            texts: The corpus.
            compute: Device, threads and engine.
            log: Told, once, when another run holds the table.

        Returns:
            How many they were.

        Raises:
            UserError: The teacher does not make one vector per text, its files changed meanwhile, or it does not make
                the vectors that are known of it.
            VectorError: The teacher made vectors that must not be stored.
            DiskSpaceError: The disk is full. What was committed stays.
        """

        def read(places: Places, at: Positions) -> list[str]:
            return texts.take(places[at], ["text"]).column("text").to_pylist()

        def read_all(at: Positions) -> list[str]:
            return texts.take(at, ["text"]).column("text").to_pylist()

        # The lock is taken once per round of units; the log says it once per call.
        said: list[bool] = []

        def say_waiting() -> None:
            if not said:
                log.info(
                    f"{self.teacher.name}: another run is encoding with this teacher; waiting for its unit, then going "
                    "on with what is missing."
                )
                said.append(True)

        def wanted() -> Iterator[Wanted]:
            for role, keys, places in texts_by_role(texts):
                lacks = self._stored.table(role).missing(keys)
                yield Wanted(role, keys[lacks], partial(read, places[lacks]))

        rows = self.teacher.unit_rows
        # Before it counts: an open teacher knows which texts it does not take.
        self.teacher.fetch_ahead(self._open(compute), wanted)
        # One count for all roles, which encoding moves within a unit, and a worker elsewhere with each unit.
        with progress_bar(self.count_missing(texts), self.teacher.name, "texts") as bar:
            stored = 0

            def count(rows: int) -> None:
                nonlocal stored
                stored += rows
                bar.reach(stored)

            encoded = 0
            for role, keys, places in texts_by_role(texts):
                # Of texts of one role, as most corpora have, the places are those of the keys.
                reader = partial(read, places) if len(places) < len(texts) else read_all
                del places
                encoded += self._fill(role, keys, reader, compute, rows, say_waiting, log.info, count)
            return encoded

    def _fill(
        self,
        role: Role,
        keys: Keys,
        read: Callable[[Positions], list[str]],
        compute: Compute,
        unit_rows: int = UNIT_ROWS,
        on_wait: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda _line: None,
        count: Callable[[int], None] = lambda _rows: None,
    ) -> int:
        self._prepare(role, compute)
        table = self._stored.table(role)
        if table.missing(keys).size and not self.teacher.paid:
            self._require_known(role, compute, say)
        writer, fingerprint = table.writer, self.fingerprints[role]
        # One process asks a service, as its limits are those of the account.
        engine = LocalEngine() if self.teacher.paid else compute.engine

        def write(units: Sequence[Positions]) -> Iterator[WrittenUnit | None]:
            # A generator: the texts of a unit are read when a worker is free for it.
            planned = (EncodeUnit(role, fingerprint, keys[at], read(at), writer) for at in units)
            count(0)  # the examination has encoded texts, too
            for written in engine.run(self._worker, planned, compute):
                count(written.rows if written else 0)
                yield written

        def given_up() -> Keys:
            return to_keys(sorted(self.refused(role)))

        return table.fill_units(keys, write, engine.workers, unit_rows, on_wait, given_up)

    def _open(self, compute: Compute) -> TeacherModel:
        self._described = self._worker.model(compute)
        return self._described

    def _prepare(self, role: Role, compute: Compute) -> None:
        """Before writing: the model is opened, as a new table's metadata describe it."""
        self._described = self._open(compute)
        if self._described.embedding != "vector":
            raise UserError(
                f"teacher {self.teacher.name!r} makes {self._described.embedding}, not one vector per text.",
                "Take another teacher.",
            )
        # A role that no text of the corpus has, e.g. a prompt of an evaluation task.
        if role not in self.fingerprints:
            self.fingerprints[role] = self._described.fingerprint(role)

    def _require_known(self, role: Role, compute: Compute, say: Callable[[str], None]) -> None:
        """Before the first vector of a table is stored by this object: the model is compared with what is known."""
        if self.fingerprints[role] in self._compared:
            return
        second = require_examined(self.teacher, self._folder, compute, self._workspace, say)
        require_known(self.teacher, self._worker.model(compute), role, second, self._workspace, compute)
        self._compared.add(self.fingerprints[role])

    def _describe(self, role: Role) -> dict[str, Any]:
        """What the table of a role says of itself; nothing where it is only looked at, and empty."""
        return {"name": self.teacher.name, **self._described.describe(role)} if self._described else {}

    def digest(self, texts: Texts) -> tuple[str, float]:
        """A digest of the vectors of a corpus, and the largest deviation of a norm from 1.

        Args:
            texts: The corpus, without those that the teacher does not take.

        Returns:
            The first 128 bits of the SHA-256 over ids and float16 vectors, in hexadecimal; and the deviation.

        Raises:
            MissingKeysError: A text has no vector.
            DamageError: A vector is not finite.
        """
        content, worst = hashlib.sha256(), 0.0
        for batch in texts.scan(["id", "role"]):
            ids, roles = batch.column("id").to_pylist(), batch.column("role").to_pylist()
            # Ids and vectors alternate batch by batch, so the batches of the corpus's file are part of the digest.
            content.update("".join(ids).encode())
            for start in range(0, len(ids), BLOCK_ROWS):
                # float16 bytes as stored: they are hashed without rounding once more.
                block = self.fetch(ids[start : start + BLOCK_ROWS], roles[start : start + BLOCK_ROWS])
                deviation = float(np.abs(np.linalg.norm(block.astype(np.float32), axis=1) - 1).max(initial=0.0))
                if not np.isfinite(deviation):
                    raise DamageError(
                        f"teacher {self.teacher.name!r}: a stored vector of the corpus holds NaN or infinity."
                    )
                worst = max(worst, deviation)
                content.update(block.tobytes())
        return content.hexdigest()[:32], worst

    def fetch(self, ids: Sequence[str], roles: Sequence[Role]) -> np.ndarray:
        """Stored vectors, `[len(ids), dim]` float16.

        Args:
            ids: Of the texts, in any order.
            roles: One per id.

        Raises:
            MissingKeysError: A text has no vector in its role.
        """
        return self._stored.fetch(ids, roles)

    def embed(self, texts: Sequence[str], role: Role, compute: Compute) -> np.ndarray:
        """Vectors of any texts, `[len(texts), dim]` float16; the missing ones are encoded and stored.

        Args:
            texts: May repeat.
            role: Role of all of them.
            compute: Device, threads and engine.

        Raises:
            RefusedTextsError: The teacher does not take a text.
            VectorError: The teacher made vectors that must not be stored.
            DiskSpaceError: The disk is full. What was committed stays.
        """
        ids, distinct, read = _by_id(texts)
        self._fill(role, to_keys(distinct), read, compute)
        refused = self.refused(role)
        if positions := [number for number, key in enumerate(ids) if key in refused]:
            reasons = [refused[ids[number]] for number in positions]
            raise RefusedTextsError(self.teacher.name, [texts[number] for number in positions], positions, reasons)
        return self._stored.table(role).fetch(ids)


def fill_and_fetch(
    table: KeyedTable[Any], texts: Sequence[str], encode: Callable[[list[str]], np.ndarray]
) -> np.ndarray:
    """What a table has of some texts, `[len(texts), dim]` float16; what is missing is computed here and stored.

    Args:
        table: Keyed by `text_id`.
        texts: May repeat.
        encode: Gives vectors `[n, dim]` of n texts, in their order.
    """
    ids, distinct, read = _by_id(texts)
    table.fill(distinct, read, encode)
    vectors: np.ndarray = table.fetch(ids)
    return vectors


def _by_id(texts: Sequence[str]) -> tuple[list[str], list[str], Callable[[Positions], list[str]]]:
    """The id of each text; the distinct ids, ascending; and how to read the texts at some positions of these."""
    ids = [text_id(text) for text in texts]
    unique = dict(zip(ids, texts, strict=True))
    distinct = sorted(unique)
    return ids, distinct, lambda at: [unique[distinct[i]] for i in at]
