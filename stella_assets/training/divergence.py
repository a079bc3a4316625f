"""Stopping a stage whose loss will not come back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

from stella_assets.core.errors import UserError

EXPLODED = 4.0
"""A loss this many times the one that the stage began with does not come back, if it is above that of a constant."""
# Next to the checkpoints, which outlive a run that failed; the artefact's folder does not.
REPORT = "diverged.json"


class DivergedError(UserError):
    """A loss that is no longer a number, or far above where it began."""


def require_sound(
    name: str,
    step: int,
    loss: float,
    gradient_norm: float,
    start: float,
    constant: float,
    read_ids: Callable[[], list[str]],
    scratch: Path,
) -> None:
    """Stop unless loss and gradient are finite and the loss is near where it began, or below.

    Args:
        name: Of the stage.
        step: That was just computed.
        loss: Of its batch.
        gradient_norm: Of its batch, before clipping.
        start: Dev loss before the stage.
        constant: About the loss of a student that gives one vector for every text. A stage that begins near zero may
            rise to many times its start and still be far below it.
        read_ids: Gives the ids of the batch's texts.
        scratch: Where checkpoints are; a report is written here.

    Raises:
        DivergedError: With the step, the texts and the last good checkpoint.
    """
    # The start is in the log of the checkpoints, so a resumed run compares with the same number.
    if math.isfinite(loss) and math.isfinite(gradient_norm) and loss <= max(EXPLODED * start, constant):
        return
    # Ids are read only now: the check runs at every step.
    ids, path = read_ids(), scratch / REPORT
    good = max((scratch / "checkpoints").glob("checkpoint-*"), default=None)
    path.write_text(
        # As text: JSON has neither NaN nor infinity.
        json.dumps({"step": step, "loss": repr(loss), "gradient_norm": repr(gradient_norm), "ids": ids}, indent=1)
    )
    more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
    raise DivergedError(
        f"{name}: the loss is {loss:.4g} with a gradient of norm {gradient_norm:.4g} at step {step}; it began with "
        f"{start:.4g}. Texts: {', '.join(ids[:3])}{more}, all in {path}. Last good checkpoint: "
        f"{good or 'none yet'}.",
        "Lower `learning_rate`, or look at these texts.",
    )
