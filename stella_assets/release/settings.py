"""The recipe's part on the release: what is published, and what it must show first."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stella_assets.core.config import ConfigModel, Gain, Positive

# Above 1, because a student may be required to beat a teacher.
Share = Annotated[float, Field(gt=0, le=2)]
Points = Annotated[float, Field(ge=0, le=100)]


class Gate(ConfigModel):
    """What a release must show. Scores are of the last stage at its largest dimension, points are of 100."""

    retention: dict[str, Share] = Field(
        default={}, description="minimum share of the reference's score, by task type, or `mean` of all tasks"
    )
    retention_of: str = Field(
        default="concatenation", description="the reference: `concatenation`, or a teacher's name"
    )
    max_base_regression: Points | None = Field(
        default=0.0,
        description="points that the mean may lose compared with the base model as its authors ship it; `null` for any",
        # So that recipes without it keep their digest.
        exclude_if=lambda points: points == 0.0,
    )
    gain: Gain | None = Field(default=None, description="minimum gain of the mean over the base model, in points")
    gain_over_release: Gain | None = Field(
        default=None,
        description="minimum gain of the mean over the active release, in points; a negative value allows a loss",
    )
    max_task_regression: Points | None = Field(
        default=2.0, description="points that a task may lose compared with the active release"
    )
    dimensions: dict[Positive, Share] = Field(
        default={}, description="minimum share of the largest dimension's mean, by Matryoshka dimension"
    )
    contamination: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="texts of the corpus that may still contain a text of an evaluated task"
    )


class ReleaseSettings(ConfigModel):
    """The published model folder."""

    dimension: Positive = Field(description="dimension of the vectors that the folder gives by default")
    licence: str = Field(description="of the student's weights, shown in the model card")
    distribution: Literal["public", "internal"] = Field(
        default="public",
        description="who may get it; `internal` is needed where the terms of a teacher do not allow to publish it",
        # So that recipes without it keep their digest.
        exclude_if=lambda distribution: distribution == "public",
    )
    onnx: bool = Field(default=True, description="whether the folder also contains the model as ONNX")
    gate: Gate = Field(default=Gate(), description="what the student must show before it is released")
