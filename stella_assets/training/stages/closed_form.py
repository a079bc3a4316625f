"""The method `closed_form`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from stella_assets.core.config import Positive
from stella_assets.core.manifest import Manifest
from stella_assets.core.step import Estimate, Size
from stella_assets.students import DenseConfig
from stella_assets.training.stages.base import JASPER, STAGES, Outcome, StageConfig, StageContext


@STAGES.register
class ClosedForm(StageConfig):
    """Ridge regression of the full head on a frozen encoder, in one pass over the texts."""

    method: Literal["closed_form"] = "closed_form"
    train_layers: int | Literal["all"] = Field(0, description="always 0: the encoder is frozen")
    texts: Positive | None = Field(None, description="texts to fit to; all when left out")

    # A field all the same: recipes name `train_layers` for every stage, and 0 says plainly what happens.
    @field_validator("train_layers")
    @classmethod
    def _require_frozen_encoder(cls, layers: Any) -> Any:
        if layers != 0:
            raise ValueError(f"method closed_form needs a frozen encoder: set train_layers to 0, not {layers}")
        return layers

    def require_fit(self, place: str, student: DenseConfig) -> None:
        """Only a linear head is a least-squares problem; see `StageConfig.require_fit`."""
        if student.head_hidden:
            raise ValueError(
                f"{place}: method closed_form cannot fit a head of two layers (student.head_hidden); use method descent"
            )

    def describe(self) -> str:
        """See `StageConfig.describe`."""
        return f"Fits the full head by ridge regression on the frozen encoder's states, in place of {JASPER}."

    def estimate(self, last: Manifest | None, size: Size | None) -> Estimate:
        """The time of the last one, and that of the texts by its speed; see `StageConfig.estimate`."""
        texts = min(filter(None, (self.texts, size.train if size else None)), default=None)
        seconds = super().estimate(last, size).seconds
        if last and seconds and texts and (rate := last.metrics.get("texts_per_second")):
            seconds = max(0.0, seconds - last.metrics["texts_train"] / rate) + texts / rate
        return Estimate("fitted in one pass", seconds, texts=texts)

    def run(self, context: StageContext) -> Outcome:
        """Fit the full head in place; see `stella_assets.training.closed_form`."""
        from stella_assets.training.closed_form import fit_full_head

        objective = self.objective(context.student.dimensions)
        fit = fit_full_head(context.student, objective, context.name, context.data, context.part, self.texts)
        return Outcome(
            fit.log,
            1,  # the log has step 0, before the fit, and step 1, after it
            {
                "method": self.method,
                "ridge_lambda": fit.ridge_lambda,
                "exponent": fit.exponent,
                "texts_per_second": round(fit.texts_per_second, 1),
                "tried": {name: round(loss, 4) for name, loss in fit.tried.items()},
            },
        )
