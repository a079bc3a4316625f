"""Encoding in units of work: a worker gets a unit of texts and writes their vectors as one file of a table.

Nothing is committed here; the process that planned the units commits the files, in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stella_assets.core.devices import Compute
from stella_assets.core.errors import UserError
from stella_assets.storage.keys import Keys
from stella_assets.storage.unit_writer import UnitWriter, WrittenUnit
from stella_assets.teachers.kinds.base import Role, TeacherConfig, TeacherModel
from stella_assets.teachers.refusal import RefusedTextsError


@dataclass(frozen=True, eq=False)
class EncodeUnit:
    """Texts to encode, and the table that their vectors belong to.

    Attributes:
        role: Role of all texts.
        fingerprint: What the table's vectors depend on; a model with another one must not write into it.
        keys: Of the texts, `[n]`.
        texts: `n` of them.
        writer: Writes a file of the table.
    """

    role: Role
    fingerprint: str
    keys: Keys
    texts: Sequence[str]
    writer: UnitWriter[Any]


@dataclass(frozen=True)
class EncodeWorker:
    """A teacher that is opened once per process and device. It travels to other processes without its model.

    Attributes:
        teacher: The teacher's settings.
        folder: Of its artefact; a fitted teacher is there.
    """

    teacher: TeacherConfig
    folder: Path
    _models: list[tuple[Compute, TeacherModel]] = field(default_factory=list, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[EncodeWorker], tuple[TeacherConfig, Path]]:
        # A model on a GPU cannot be pickled; another process opens its own from the settings.
        return EncodeWorker, (self.teacher, self.folder)

    def model(self, compute: Compute) -> TeacherModel:
        """The teacher's model on a device."""
        # A list, not a dict: a `Compute` is compared by value and its engine need not be hashable.
        for known, model in self._models:
            if known == compute:
                return model
        self._models.append((compute, self.teacher.open(self.folder, compute)))
        return self._models[-1][1]

    def open(self, compute: Compute) -> Callable[[EncodeUnit], WrittenUnit | None]:
        """Open the model, and return the function that encodes and writes one unit.

        Args:
            compute: Device, number format and threads of this process.

        Returns:
            A function that raises UserError where the model's fingerprint is not the unit's. It gives None for a unit
            of which the teacher takes no text.
        """
        model = self.model(compute)

        def write(unit: EncodeUnit) -> WrittenUnit | None:
            # Checked per unit, where the vectors are made: a table must not mix vectors of two fingerprints.
            if (found := model.fingerprint(unit.role)) != unit.fingerprint:
                raise UserError(
                    f"teacher {self.teacher.name!r}: its fingerprint on device {compute.device_name or 'auto'!r} is "
                    f"{found}, and the table's is {unit.fingerprint}: its files changed meanwhile, or the devices "
                    "compute in different number formats.",
                    "Set `dtype` in the recipe, or run again.",
                )
            texts, keys = list(unit.texts), unit.keys
            try:
                vectors = model.encode(texts, unit.role)
            except RefusedTextsError as refused:
                left = np.delete(np.arange(len(texts)), refused.positions)
                if not left.size:
                    return None
                # Its answers to the others are kept, so they are only read now.
                keys, vectors = keys[left], model.encode([texts[at] for at in left], unit.role)
            return unit.writer.write(keys, vectors)

        return write
