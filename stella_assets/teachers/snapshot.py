"""Reading snapshots: what a recipe's student learns from, one tagged version of a Lance table.

A row is a text; each teacher has a column `vector_<teacher>` of unit vectors in float16. Physical order is an accident
of history, so rows are numbered by their ids, ascending: the same texts have the same numbers in every snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from typing import Any

import numpy as np
import pyarrow as pa

from stella_assets.storage.codecs import vectors_to_numpy
from stella_assets.storage.database import FORMAT, has_tag, open_table, table_tags
from stella_assets.storage.errors import MissingSnapshotError
from stella_assets.storage.keys import to_keys
from stella_assets.storage.lance_errors import translate_lance_errors
from stella_assets.storage.table_files import require_whole
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.joining import Centre, concatenate
from stella_assets.teachers.refusal import Texts, TextsWithout
from stella_assets.teachers.tables import SNAPSHOT, SNAPSHOTS_ASSET

TEXT_COLUMNS = ("id", "text", "source", "section", "role", "split")
VECTOR = "vector_"
LEFT_OUT = "left_out"
"""Of the lineage: positions in the corpus of texts that a teacher does not take; not there where there are none."""


@dataclass(frozen=True)
class Layout:
    """Which teacher is where in the concatenated vector, and with which weight.

    Attributes:
        teachers: Names, in the order of the concatenation.
        dims: Dimensions of each.
        weights: `w_k` of each, as the recipe has them.
        centres: Where each one's vectors lie, by name; empty where it was not measured.

    References:
        arXiv 2412.19048, section 2.1.
    """

    teachers: tuple[str, ...]
    dims: tuple[int, ...]
    weights: tuple[float, ...]
    # Not compared: a centre holds an array.
    centres: Mapping[str, Centre] = field(default_factory=dict, compare=False)

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Layout:
        """From what `to_json` gave. A snapshot of an earlier version has no centres."""
        teachers, dims, weights = (tuple(written[key]) for key in ("teachers", "dims", "weights"))
        centres = {name: Centre.from_json(each) for name, each in written.get("centres", {}).items()}
        return cls(teachers, dims, weights, centres)

    def to_json(self) -> dict[str, Any]:
        """As plain values: all that is needed to make the concatenation of new vectors."""
        centres = {name: centre.to_json() for name, centre in self.centres.items()}
        return {"teachers": self.teachers, "dims": self.dims, "weights": self.weights, "centres": centres}

    def describe(self) -> dict[str, Any]:
        """For people: without the means themselves."""
        return {
            "teachers": self.teachers,
            "dims": self.dims,
            "weights": self.weights,
            "mean_cosines": tuple(self.mean_cosine_of(teacher) for teacher in self.teachers),
            "centred": tuple(self.mean_of(teacher) is not None for teacher in self.teachers),
        }

    @property
    def dim(self) -> int:
        """Dimensions of the concatenated vector."""
        return sum(self.dims)

    def of(self, teachers: Collection[str]) -> Layout:
        """The layout of some of its teachers, in the same order."""
        rows = zip(self.teachers, self.dims, self.weights, strict=True)
        names, dims, weights = zip(*(row for row in rows if row[0] in teachers), strict=True)
        return Layout(names, dims, weights, self.centres)

    def leading(self, teachers: Collection[str] | None) -> int:
        """How many of the first dimensions belong to some of its teachers; None for all teachers."""
        if teachers is None:
            return self.dim
        first = takewhile(lambda row: row[0] in teachers, zip(self.teachers, self.dims, strict=True))
        return sum(dim for _, dim in first)

    def dim_of(self, teacher: str) -> int:
        """Dimensions of a teacher's vectors."""
        return self.dims[self.teachers.index(teacher)]

    def weight_of(self, teacher: str) -> float:
        """`w_k` of a teacher."""
        return self.weights[self.teachers.index(teacher)]

    def mean_of(self, teacher: str) -> np.ndarray | None:
        """The mean `[dim]` that is taken from a teacher's vectors; None where they are joined as they are."""
        return self.centres[teacher].mean_D if teacher in self.centres else None

    def mean_cosine_of(self, teacher: str) -> float | None:
        """Mean cosine of two training texts by a teacher, where it was measured."""
        return self.centres[teacher].mean_cosine if teacher in self.centres else None

    def targets(self, vectors_ND: np.ndarray) -> np.ndarray:
        """What a student learns of texts: `[N, dim]` float32 of unit norm.

        Args:
            vectors_ND: Vectors of all teachers side by side, as a snapshot holds them.
        """
        blocks = np.split(vectors_ND, np.cumsum(self.dims)[:-1], axis=1)
        return concatenate(blocks, self.weights, [self.mean_of(teacher) for teacher in self.teachers])


def snapshot_schema(
    layout: Layout, lineage: Mapping[str, Any], fingerprints: Mapping[str, Mapping[str, str]]
) -> pa.Schema:
    """The table's schema, with layout and lineage in the metadata, so that a copied folder explains itself.

    Args:
        layout: Teachers, dims, weights and centres.
        lineage: What the snapshot was made of.
        fingerprints: For each teacher, its fingerprint by role; kept with the column.

    Returns:
        The text columns, `chars` (characters of a text), and per teacher `vector_<name>` as float16 `[dim]`.
    """
    fields = [pa.field(name, pa.string()) for name in TEXT_COLUMNS]
    # Characters, so that batches by length need not read the texts.
    fields.append(pa.field("chars", pa.int32()))
    for teacher, dim in zip(layout.teachers, layout.dims, strict=True):
        about = {"stella.fingerprints": json.dumps(fingerprints[teacher], sort_keys=True)}
        fields.append(pa.field(VECTOR + teacher, pa.list_(pa.float16(), dim), metadata=about))
    metadata = {
        "stella.format": str(FORMAT),
        "stella.layout": json.dumps(layout.to_json()),
        "stella.lineage": json.dumps(dict(lineage), sort_keys=True),
    }
    return pa.schema(fields, metadata=metadata)


class Snapshot:
    """One version of the concatenated vectors.

    It never changes: later snapshots are other versions, and a tag keeps its version from garbage collection.

    Args:
        dataset: A Lance dataset at that version.

    Example:
        >>> snapshot = Snapshot.open(workspace, "demo", current_snapshot(workspace, "demo"))
        >>> target = snapshot.layout.targets(snapshot.vectors(snapshot.rows("train")[:32]))
        >>> target.shape == (32, snapshot.layout.dim)
        True
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        metadata = dataset.schema.metadata
        self.version = int(dataset.version)
        self.layout = Layout.from_json(json.loads(metadata[b"stella.layout"]))
        self.lineage: dict[str, Any] = json.loads(metadata[b"stella.lineage"])
        self.fingerprints: dict[str, dict[str, str]] = {
            teacher: json.loads(dataset.schema.field(VECTOR + teacher).metadata[b"stella.fingerprints"])
            for teacher in self.layout.teachers
        }

    def of_corpus(self, texts: Texts) -> Texts:
        """The texts of the corpus that the snapshot has, numbered as its rows.

        Args:
            texts: The corpus that it was made of.
        """
        return TextsWithout(texts, self.left_out) if self.left_out.size else texts

    @cached_property
    def left_out(self) -> np.ndarray:
        """Positions in the corpus of the texts that it does not have, because a teacher does not take them."""
        return np.array(self.lineage.get(LEFT_OUT, ()), dtype=np.int64)

    @classmethod
    def open(cls, workspace: Workspace, recipe: str, tag: str) -> Snapshot:
        """The snapshot of a recipe that `tag` names.

        Args:
            workspace: Where the store is.
            recipe: Name of the recipe.
            tag: The whole tag: the key of the artefact of `concatenated_vectors`.

        Raises:
            MissingSnapshotError: There is no such snapshot.
        """
        tags = snapshot_tags(workspace, recipe)
        if tag not in tags:
            raise MissingSnapshotError(
                f"{recipe}{SNAPSHOT}: no snapshot is tagged {tag}. It has {', '.join(tags) or 'none'}."
            )
        return cls(open_table(workspace, recipe + SNAPSHOT, tag))

    @property
    def dataset(self) -> Any:
        """The Lance dataset, at this version."""
        return self._dataset

    def __len__(self) -> int:
        return int(self._dataset.count_rows())

    @cached_property
    def keys(self) -> np.ndarray:
        """Keys of the texts in the order of rows, 16 bytes each."""
        return self._physical_keys[self.order]

    @cached_property
    def _physical_keys(self) -> np.ndarray:
        with translate_lance_errors(self._dataset.uri):
            # The empty first part gives a table without rows a dtype.
            return np.concatenate([to_keys([]), *(to_keys(b.column(0)) for b in self.scan(["id"]))])

    @cached_property
    def order(self) -> np.ndarray:
        """Position of each row in the table, `[rows]`."""
        # `take` counts undeleted rows in the order of `scan`, so a position in the scan is a position for `take`.
        return np.argsort(self._physical_keys, kind="stable")

    @cached_property
    def random_order(self) -> np.ndarray:
        """All rows, ordered by the second half of their ids, `[rows]`: the first ones are a random sample.

        Rows are in the order of the first half of an id, and the second half is independent of it. The smallest hashes
        stay the smallest when texts are added, unlike a seeded draw of positions.
        """
        return np.argsort(self.keys.view("S8").reshape(-1, 2)[:, 1], kind="stable")

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of one split, ascending."""
        import pyarrow.compute as pc

        chosen = [pc.equal(b.column(0), split).to_numpy(zero_copy_only=False) for b in self.scan(["split"])]
        return np.flatnonzero(np.concatenate(chosen)[self.order])

    def text_lengths(self) -> np.ndarray:
        """Characters of each text, `[rows]` int32."""
        return np.concatenate([b.column(0).to_numpy() for b in self.scan(["chars"])])[self.order]

    def take(self, rows: Sequence[int] | np.ndarray, columns: Sequence[str]) -> dict[str, list[Any]]:
        """The named text columns of `rows`, in their order.

        Args:
            rows: Row numbers, in any order.
            columns: Of `TEXT_COLUMNS`, or `chars`.
        """
        with translate_lance_errors(self._dataset.uri):
            table = self._dataset.take(self.order[np.asarray(rows, dtype=np.int64)], columns=list(columns))
        return {name: table.column(name).to_pylist() for name in columns}

    def vectors(self, rows: Sequence[int] | np.ndarray, teachers: Sequence[str] | None = None) -> np.ndarray:
        """Unit vectors of the teachers side by side, one contiguous block `[len(rows), sum of dims]` float16.

        `layout.targets` makes the student's targets of a block with all teachers.

        Args:
            rows: Row numbers, in any order.
            teachers: Only these, in this order; all in the order of the layout where it is None.
        """
        return self.read(rows, [], teachers)[1]

    def read(
        self, rows: Sequence[int] | np.ndarray, columns: Sequence[str], teachers: Sequence[str] | None = None
    ) -> tuple[dict[str, list[Any]], np.ndarray]:
        """Text columns and vectors of `rows` in one read: see `take` and `vectors`."""
        names = [VECTOR + teacher for teacher in (self.layout.teachers if teachers is None else teachers)]
        at = self.order[np.asarray(rows, dtype=np.int64)]
        ascending = np.argsort(at, kind="stable")  # Lance reads ascending rows faster
        with translate_lance_errors(self._dataset.uri):
            table = self._dataset.take(at[ascending], columns=[*columns, *names])
        parts = [vectors_to_numpy(table.column(name)) for name in names]
        # Filled in place: joining the parts and reordering them would take the block's memory three times.
        block = np.empty((len(at), sum(part.shape[1] for part in parts)), dtype=np.float16)
        start = 0
        for part in parts:
            block[ascending, start : start + part.shape[1]] = part
            start += part.shape[1]
        # The inverse permutation: from ascending back to the order that was asked for.
        given = np.argsort(ascending)
        return {name: table.column(name).take(given).to_pylist() for name in columns}, block

    def scan(self, columns: Sequence[str], batch_rows: int = 8192) -> Iterator[pa.RecordBatch]:
        """All rows in the order in which they lie, in batches: the quickest way to see every row once."""
        with translate_lance_errors(self._dataset.uri):
            yield from self._dataset.to_batches(columns=list(columns), batch_size=batch_rows)


def snapshot_tags(workspace: Workspace, recipe: str) -> dict[str, int]:
    """The tags of a recipe's snapshots with their versions, oldest first; a repair gives an old one a new version."""
    return table_tags(workspace, recipe + SNAPSHOT)


def has_snapshot(workspace: Workspace, recipe: str, tag: str) -> bool:
    """Whether a recipe has a snapshot of this tag; of a local store, usually without opening it.

    Raises:
        DamageError: Files of it are not as they were written.
    """
    require_whole(workspace, recipe + SNAPSHOT, tag)
    return has_tag(workspace, recipe + SNAPSHOT, tag)


def current_snapshot(workspace: Workspace, recipe: str) -> str:
    """The tag of the snapshot that a recipe uses now; its newest where no artefact says which.

    Raises:
        MissingSnapshotError: The recipe has no snapshot.
    """
    # The link is moved when an artefact is finished, so a snapshot that was tagged but not recorded is not current.
    link = workspace.current(recipe, SNAPSHOTS_ASSET)
    if link.exists():
        return link.resolve().name
    tags = snapshot_tags(workspace, recipe)
    if not tags:
        raise MissingSnapshotError(f"{recipe}{SNAPSHOT}: the recipe has no snapshot.")
    return next(reversed(tags))
