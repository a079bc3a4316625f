"""What every stage of training has, whatever its method."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from stella_assets.core.config import ConfigModel
from stella_assets.core.errors import UserError
from stella_assets.core.manifest import Manifest
from stella_assets.core.registry import Registry
from stella_assets.core.step import Estimate, Log, Size
from stella_assets.students import DenseConfig
from stella_assets.training.head_losses import HeadLosses, MatryoshkaLosses
from stella_assets.training.losses import LossConfig

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.core.devices import Compute
    from stella_assets.students.dense.model import DenseStudent
    from stella_assets.training.data import TrainingData
    from stella_assets.training.objective import Objective

JASPER = "[Jasper and Stella](https://arxiv.org/abs/2412.19048)"


class StageError(UserError):
    """A stage that cannot be trained as the recipe says."""


@dataclass(frozen=True)
class StageContext:
    """What a method works with.

    Attributes:
        name: Of the stage, for logs.
        student: Trained in place.
        data: Splits `train` and `dev`.
        seed: Of the order of the texts.
        folder: Of the artefact; further files are written here.
        scratch: What an interrupted run of this very stage left here is still here.
        compute: Where it computes.
        log: For people.
        part: Positions of the rows of the full head that the stage's teachers teach; None for all.
        pairs: Folder of the pairs, for a stage that reads them.
        mined_negatives: Folder of the negatives that were mined for them; None for none.
    """

    name: str
    student: DenseStudent
    data: Mapping[str, TrainingData]
    seed: int
    folder: Path
    scratch: Path
    compute: Compute
    log: Log
    part: Tensor | None = None
    pairs: Path | None = None
    mined_negatives: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What a method returns.

    Attributes:
        log: Rows of the table `training_log`. Step 0 of the split `dev` is the student before the stage.
        kept_step: The step of the log whose weights the student has now.
        metrics: Figures and words for the manifest.
    """

    log: list[dict[str, Any]]
    kept_step: int
    metrics: Mapping[str, Any]


class StageConfig(ConfigModel):
    """Settings that all methods share. A method adds its own, and the literal field `method`.

    Attributes:
        data: Which data it reads: texts of the corpus, or pairs of them.
        target: What it learns: the teachers' concatenated vectors.
    """

    data: ClassVar[Literal["texts", "pairs"]] = "texts"
    target: ClassVar[Literal["vectors"]] = "vectors"

    method: str
    train_layers: Annotated[int, Field(ge=0)] | Literal["all"] = Field(
        description="last encoder layers that train, or `all`; 0 freezes the encoder, as method closed_form needs"
    )
    teachers: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        None, description="teachers to learn from, by name; all when left out"
    )
    full_head: HeadLosses = Field(description="losses of the full head, e.g. `{cosine: 10, similarity: 200}`")

    @model_validator(mode="before")
    @classmethod
    def _refuse_keys_of_others(cls, raw: Any) -> Any:
        # "Extra key" alone would not say that the key exists and belongs to another method.
        known = {key for stage in STAGES for key in stage.model_fields}
        foreign = [key for key in raw if key in known - cls.model_fields.keys()] if isinstance(raw, dict) else []
        if foreign:
            method = cls.model_fields["method"].default
            raise ValueError(f"method {method} takes no {foreign[0]}; remove it, or choose another method")
        return raw

    @model_validator(mode="after")
    def _require_pairs_for_their_losses(self) -> Self:
        compared = {loss.loss for loss in self.all_losses() if loss.compares == "pairs"}
        if compared and self.data != "pairs":
            raise ValueError(f"{min(compared)} is about pairs of texts; take `method: contrastive`, or remove it")
        if self.data == "pairs" and not compared:
            raise ValueError(f"method {self.method} needs a loss about pairs; give `info_nce` or `cosent` a weight")
        return self

    def all_losses(self) -> list[LossConfig]:
        """The losses of all heads."""
        return list(self.full_head.losses)

    # The answers of a method without Matryoshka heads; a method that trains them overrides both.
    @property
    def trains_matryoshka_heads(self) -> bool:
        """Whether it trains Matryoshka heads."""
        return False

    def matryoshka_losses(self, dimension: int) -> MatryoshkaLosses | None:
        """The losses of a Matryoshka head; None where it does not train.

        Args:
            dimension: Of the head.
        """
        return None

    def starts_in_closed_form(self, *, joining: bool) -> bool:
        """Whether rows of the full head that teach a teacher for the first time start in closed form.

        Args:
            joining: Whether the student was taught before.
        """
        del joining
        return False

    def objective(self, dimensions: Mapping[str, int]) -> Objective:
        """What it minimises.

        Args:
            dimensions: Of the student's heads by name, the full one first.

        Returns:
            The losses of each head that trains.
        """
        from stella_assets.training.objective import Objective

        matryoshka = {
            name: losses
            for name, dimension in list(dimensions.items())[1:]
            if (losses := self.matryoshka_losses(dimension)) is not None
        }
        return Objective(self.full_head, matryoshka)

    def prepare(self, student: DenseStudent) -> None:
        """Let what it trains take gradients, and nothing else.

        Args:
            student: Changed in place.

        Raises:
            StudentError: It has no such layers.
        """
        from stella_assets.students.dense.layers import train_only

        train_only(student, self.train_layers, self.objective(student.dimensions).heads)

    def require_fit(self, place: str, student: DenseConfig) -> None:
        """Make sure that the stage can train a student.

        Args:
            place: Of the stage in the recipe, e.g. `stages.0`.
            student: Its settings.

        Raises:
            ValueError: It cannot; the message begins with the place.
        """

    def require_data(self, name: str, texts: Mapping[str, int]) -> None:
        """Make sure that there are enough texts.

        Args:
            name: Of the stage.
            texts: How many, by split.

        Raises:
            StageError: There are too few.
        """
        # Two, as the spread of the teachers and the nearest neighbours are about pairs of texts.
        if texts["train"] < 2:
            raise StageError(
                f"{name}: there are {texts['train']} training texts, which are too few.", "Add texts to the corpus."
            )
        if texts["dev"] < 2:
            raise StageError(f"{name}: the corpus has no dev texts to measure on.", "Raise `corpus.dev`, or add texts.")

    @abstractmethod
    def describe(self) -> str:
        """What it trains, in a sentence of Markdown."""

    def estimate(self, last: Manifest | None, size: Size | None) -> Estimate:
        """What running it would cost, from the last artefact of its like.

        Args:
            last: Manifest of that artefact; None where there is none.
            size: Of the corpus; None where it is not known.
        """
        del size
        return Estimate("", float(last.run_info["seconds"]) if last else None)

    def shortened(self, steps: int, batch_size: int, train: int) -> Self:
        """The same stage for a few steps, as a probe trains it; itself where the corpus alone decides its length.

        Args:
            steps: How many.
            batch_size: Texts of a batch at most.
            train: Training texts of the whole corpus.
        """
        del steps, batch_size, train
        return self

    @abstractmethod
    def run(self, context: StageContext) -> Outcome:
        """Train the student in place.

        A run that was interrupted is called again with the same scratch folder, and continues from what lies there.

        Args:
            context: The student, its data, and where to write.

        Returns:
            The log, and which of its steps the student's weights are from.

        Raises:
            UserError: The data cannot be trained on with these settings.
        """


STAGES: Registry[StageConfig] = Registry("stage", key="method")
