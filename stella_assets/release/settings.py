"""The recipe's part on the release: what is published, and what it must show first."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stella_assets.core.config import ConfigModel, Positive

Share = Annotated[float, Field(gt=0, le=2)]
Points = Annotated[float, Field(ge=0, le=100)]


class Gate(ConfigModel):
    """What a release must show. Scores are of the last stage at its largest dimension, points are of 100."""

    retention: dict[str, Share] = Field(
        default={}, description="least share of the reference's score, by task type, or `mean` of all tasks"
    )
    retention_of: str = Field(default="concatenation", description="the reference: it, or a teacher by name")
    gain: float | None = Field(default=None, description="least points of the mean above the untouched student")
    gain_over_release: float | None = Field(
        default=None, description="least points of the mean above what is released now; below 0 lets it lose some"
    )
    max_task_regression: Points | None = Field(
        default=2.0, description="points that a task may lose against what is released now"
    )
    dimensions: dict[Positive, Share] = Field(
        default={}, description="least share of the largest dimension's mean that a shorter one has"
    )
    contamination: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="texts of the corpus that may still hold one of an evaluated task's"
    )


class Release(ConfigModel):
    """The published model folder."""

    dimension: Positive
    licence: str
    onnx: bool = Field(default=True, description="whether the folder holds the model as ONNX, too")
    gate: Gate = Gate()
