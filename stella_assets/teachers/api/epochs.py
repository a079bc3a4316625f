"""Epochs of a service: as long as fixed texts get the same vectors, it is the same model behind its name.

Shapes: C canaries, D dimensions of a vector.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from stella_assets.core.errors import UserError
from stella_assets.storage.files import write_atomically
from stella_assets.storage.sealed import seal, unseal

FILE = "epochs.json"
SAME_MODEL = 0.9999
"""The smallest cosine of two vectors of one text by one model. Repeats of OpenAI's differ by less than 1e-6."""
SAME_NUMBERS = 0.999999
"""Below it a person is told that the service computes differently than before."""


@dataclass(frozen=True)
class Observation:
    """What the canaries have shown.

    Attributes:
        epoch: Of the model that answers now.
        before: The epoch that was current; None at first use.
        cosine: The smallest cosine of a canary with its vector when the epoch before began; 1 at first use.
    """

    epoch: int
    before: int | None
    cosine: float

    @property
    def changed(self) -> bool:
        """Whether another model answers than before."""
        return self.before is not None and self.epoch != self.before


class Epochs:
    """The epochs of one service, with the canaries' vectors of each.

    Args:
        folder: Of the service.

    Raises:
        UserError: The file cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE

    @property
    def current(self) -> int:
        """The epoch that the service was in when it was last asked; 1 before that."""
        return int(self._read()["current"])

    @property
    def known(self) -> bool:
        """Whether the canaries were ever sent."""
        return bool(self._read()["epochs"])

    def damages(self) -> Iterator[UserError]:
        """What is damaged."""
        try:
            self._read()
        except UserError as error:
            yield error

    def observe(self, vectors_CD: np.ndarray) -> Observation:
        """Note the canaries' vectors of today. Callers hold the service's lock.

        Args:
            vectors_CD: Of unit norm.
        """
        state = self._read()
        if not state["epochs"]:
            self._write({"current": 1, "epochs": [_epoch(1, vectors_CD)]})
            return Observation(1, None, 1.0)
        before = int(state["current"])
        cosines = {each["epoch"]: _least_cosine(each, vectors_CD) for each in state["epochs"]}
        # The current one first: services go back to an earlier model, too, and its vectors are kept.
        order = sorted(cosines, key=lambda epoch: (epoch != before, -epoch))
        now = next((epoch for epoch in order if cosines[epoch] >= SAME_MODEL), None)
        if now is None:
            now = max(cosines) + 1
            state["epochs"].append(_epoch(now, vectors_CD))
        if now != before:
            self._write({**state, "current": now})
        return Observation(now, before, cosines[before])

    def _read(self) -> dict[str, Any]:
        if not os.path.lexists(self._file):
            return {"current": 1, "epochs": []}
        try:
            state = unseal(json.loads(self._file.read_text(encoding="utf-8")))
            assert state.keys() == {"current", "epochs"}
        except (OSError, ValueError, AssertionError):
            raise UserError(
                f"{self._file}: is damaged, and says which model the stored vectors are of.",
                "Restore it from a backup. Without it the service's vectors count as those of epoch 1.",
            ) from None
        return state

    def _write(self, state: dict[str, Any]) -> None:
        write_atomically(self._file, json.dumps(seal(state), indent=1, sort_keys=True))


def _epoch(number: int, vectors_CD: np.ndarray) -> dict[str, Any]:
    packed = base64.b64encode(vectors_CD.astype("<f4").tobytes()).decode()
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"epoch": number, "since": since, "dim": vectors_CD.shape[1], "canaries": packed}


def _least_cosine(epoch: dict[str, Any], vectors_CD: np.ndarray) -> float:
    then_CD = np.frombuffer(base64.b64decode(epoch["canaries"]), "<f4").reshape(-1, epoch["dim"])
    if then_CD.shape != vectors_CD.shape:
        return -1.0
    # In float64: in float32 the products alone would differ by more than `SAME_NUMBERS` allows.
    a_CD, b_CD = then_CD.astype(np.float64), vectors_CD.astype(np.float64)
    cosines_C = (a_CD * b_CD).sum(1) / np.linalg.norm(a_CD, axis=1) / np.linalg.norm(b_CD, axis=1)
    return float(cosines_C.min())
