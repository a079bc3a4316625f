"""Teacher vectors by content: one table per fingerprint, one row per text, and no text embedded twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stella_assets.core.data import EmbeddingKind
from stella_assets.storage.codecs import Codec, FixedVectors, RaggedVectors, Scalars
from stella_assets.storage.database import count_rows
from stella_assets.storage.keyed_table import KeyedTable
from stella_assets.storage.unit_writer import table_schema
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.tables import STATES, VECTORS

COLUMN = "vector"
ABOUT = "stella.teacher"
"""Key of the table's metadata that says what its fingerprint stands for, as JSON."""

Vectors = npt.NDArray[np.floating[Any]]


def codec_of(embedding: EmbeddingKind, dim: int) -> Codec[Any]:
    """How the embeddings of a teacher are stored.

    Args:
        embedding: What the teacher makes of a text.
        dim: Dimensions of one vector; a score has none, and it is not used.
    """
    codecs: Mapping[EmbeddingKind, Codec[Any]] = {
        "vector": FixedVectors(dim),
        "token_vectors": RaggedVectors(dim),
        "score": Scalars(),
    }
    return codecs[embedding]


def vector_schema(dim: int, about: Mapping[str, Any]) -> pa.Schema:
    """Schema of a table of vectors; `about` says what its fingerprint stands for."""
    return table_schema(FixedVectors(dim), COLUMN, _metadata(about))


def stored_rows(workspace: Workspace, fingerprint: str) -> int:
    """How many vectors the store has of a fingerprint, without reading them."""
    return count_rows(workspace, VECTORS + fingerprint)


class VectorTable(KeyedTable[Any]):
    """The embeddings of one teacher fingerprint, by the hash of the text; vectors are of unit norm, kept as float16.

    Args:
        workspace: Where the store is.
        fingerprint: Names everything that a vector depends on in addition to the text.
        dim: Dimensions.
        about: What the fingerprint stands for; kept in the table's metadata.
        embedding: What the teacher makes of a text.

    Raises:
        VectorError: The table holds values of another type or dimension.

    Example:
        >>> table = VectorTable(workspace, model.fingerprint("query"), model.dim)
        >>> table.fetch([text_id("how do I sort a list?")]).shape == (1, model.dim)
        True
    """

    def __init__(
        self,
        workspace: Workspace,
        fingerprint: str,
        dim: int,
        about: Mapping[str, Any] | None = None,
        embedding: EmbeddingKind = "vector",
    ) -> None:
        codec = codec_of(embedding, dim)
        super().__init__(workspace, VECTORS + fingerprint, codec, _metadata(about or {}), COLUMN)


class StateTable(KeyedTable[Vectors]):
    """A student's pooled states by text, for evaluation: of any norm, and computed again when they are gone."""

    def __init__(self, workspace: Workspace, fingerprint: str, dim: int) -> None:
        super().__init__(workspace, STATES + fingerprint, FixedVectors(dim, unit_norm=False), {}, COLUMN)


class VectorsByRole:
    """A teacher's vectors, where the role of a text decides its prompt and so its fingerprint and table.

    Args:
        workspace: Where the store is.
        fingerprints: The fingerprint for each role; roles with equal ones share a table.
        dim: Dimensions.
        describe: What the fingerprint of a role stands for; asked when its table is made.
    """

    def __init__(
        self,
        workspace: Workspace,
        fingerprints: Mapping[str, str],
        dim: int,
        describe: Callable[[str], Mapping[str, Any]] = lambda _role: {},
    ) -> None:
        self.fingerprints = dict(fingerprints)
        self.dim = dim
        self._workspace = workspace
        self._describe = describe
        self._tables: dict[str, VectorTable] = {}

    def table(self, role: str) -> VectorTable:
        """The table of a role. It is opened once; an empty one each time, until it has been filled and described."""
        fingerprint = self.fingerprints[role]
        if fingerprint in self._tables:
            return self._tables[fingerprint]
        # Describing may load the model, and metadata are written only when a table is made.
        about = self._describe(role) if stored_rows(self._workspace, fingerprint) == 0 else {}
        table = VectorTable(self._workspace, fingerprint, self.dim, about)
        # Not kept while it is empty: it might have been opened before a model could describe it.
        if len(table):
            self._tables[fingerprint] = table
        return table

    def fetch(self, ids: Sequence[str], roles: Sequence[str]) -> npt.NDArray[np.float16]:
        """The vectors of `ids`, `[len(ids), dim]` float16, in their order.

        Args:
            ids: Of the texts, in any order.
            roles: One per id.

        Raises:
            MissingKeysError: An id has no vector in its role.
        """
        vectors = np.empty((len(ids), self.dim), dtype=np.float16)
        for role in sorted(set(roles)):
            rows = [i for i, r in enumerate(roles) if r == role]
            # One read per table, as roles have tables of their own; then back into the order of `ids`.
            vectors[rows] = self.table(role).fetch([ids[i] for i in rows])
        return vectors


def as_json(about: Mapping[str, Any]) -> str:
    """What a fingerprint stands for, as a table's metadata have it."""
    return json.dumps(dict(about), sort_keys=True)


def _metadata(about: Mapping[str, Any]) -> dict[str, str]:
    return {ABOUT: as_json(about)}
