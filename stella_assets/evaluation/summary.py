"""The summary of a report: everything that its tables and plots show, as typed values. `report.json` is its JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

ALL_TASKS = "mean"
"""Among task types, the mean of all tasks."""
# More columns do not fit the width of a terminal or of a page.
MOST_TASKS = 6
"""With more tasks than these, scores are shown by task type."""

Interval = tuple[float, float]


class SummaryPart(BaseModel):
    """A part of the summary. Values never change."""

    # `forbid`, so that a report of other code is not read as if it were complete.
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figure(SummaryPart):
    """A share or a difference, and the middle 95% of its resamples.

    Attributes:
        value: None for a share of nothing.
        interval: None for a share of what may be nothing.
    """

    value: float | None
    interval: Interval | None


class Difference(SummaryPart):
    """A difference in points of 100, and the middle 95% of its resamples."""

    value: float
    interval: Interval


class ModelSummary(SummaryPart):
    """A model at one dimension.

    Attributes:
        name: `teacher/<name>`, `concatenation`, `base_model` or `stage_<n>`.
        dimension: Of its vectors.
        scores: By task, between 0 and 1; correlations may be negative.
        types: Mean by task type.
        mean: Over tasks.
        interval: The middle 95% of the mean's resamples.
        mean_of_types: Over task types.
        parameters: None where an older artefact did not count them.
        texts_per_second: On the machine of the run; not in `report.json`, whose digest must not depend on it.
    """

    name: str
    dimension: int
    scores: dict[str, float]
    types: dict[str, float]
    mean: float
    interval: Interval
    mean_of_types: float
    parameters: int | None = None
    texts_per_second: float | None = None


class TaskSummary(SummaryPart):
    """A task, as the table `evaluation_tasks` lists it."""

    task: str
    type: str
    metric: str
    data: str
    revision: str
    benchmarks: str


class BenchmarkSummary(SummaryPart):
    """Mean over the tasks of a benchmark, of every model at its largest dimension."""

    tasks: int
    means: dict[str, float]


class ContaminationSummary(SummaryPart):
    """Texts of a scored task, and how many similar texts of the corpus were dropped or only reported."""

    task: str
    texts: int
    dropped: int
    reported: int


class QuantizationSummary(SummaryPart):
    """The last stage with vectors of fewer bits; the difference is to float32."""

    precision: str
    dimension: int
    bytes: int
    mean: float
    difference: Difference


class ParaphraseSummary(SummaryPart):
    """The last stage with paraphrased prompts; the difference is to the recipe's prompts."""

    name: str
    mean: float
    difference: Difference


class SeedSummary(SummaryPart):
    """The last stage over seeds at one dimension, scores between 0 and 1.

    Attributes:
        dimension: Of the vectors.
        seeds: How many, the recipe's own included.
        mean: Of the mean over tasks.
        spread: Its standard deviation; None with one seed.
        lowest: The lowest mean over tasks.
        highest: The highest.
        tasks: The standard deviation by task.
    """

    dimension: int
    seeds: int
    mean: float
    spread: float | None
    lowest: float
    highest: float
    tasks: dict[str, float | None]


class ReferenceModel(SummaryPart):
    """A public model, or one of the recipe's (`own`), on the tasks that both have."""

    name: str
    own: bool
    types: dict[str, float]
    mean: float


class ReferenceSummary(SummaryPart):
    """Public models and the recipe's on common tasks, best first."""

    tasks: tuple[str, ...]
    models: tuple[ReferenceModel, ...]


class Summary(SummaryPart):
    """Everything that a report says.

    Attributes:
        recipe: Name of the recipe.
        seed: Of the recipe.
        task_types: Type of each task.
        models: In the order in which they are shown, each at its dimensions; the last name is the student's.
        retention: By reference model, then by task type or `mean`: the student's score as a share of the reference's.
        gain: The student's mean minus the base model's.
        quantizations: Of the student.
        paraphrases: Of the student's prompts.
        paraphrased_tasks: The tasks that the paraphrases change.
        seeds: The student over seeds.
        tasks: With their data.
        benchmarks: By name.
        contamination: By task.
        reference_scores: None where no public model has the recipe's tasks.
    """

    recipe: str
    seed: int
    task_types: dict[str, str]
    models: tuple[ModelSummary, ...]
    retention: dict[str, dict[str, Figure]]
    gain: Difference
    quantizations: tuple[QuantizationSummary, ...] = ()
    paraphrases: tuple[ParaphraseSummary, ...] = ()
    paraphrased_tasks: tuple[str, ...] = ()
    seeds: tuple[SeedSummary, ...] = ()
    tasks: tuple[TaskSummary, ...] = ()
    benchmarks: dict[str, BenchmarkSummary] = {}
    contamination: tuple[ContaminationSummary, ...] = ()
    reference_scores: ReferenceSummary | None = None

    def at_full_dimension(self) -> dict[str, ModelSummary]:
        """Each model at its largest dimension, by name."""
        # Of equal keys the last one stays: the largest dimension.
        return {model.name: model for model in sorted(self.models, key=lambda model: model.dimension)}

    def in_order(self) -> list[ModelSummary]:
        """Each model at its largest dimension, in the order in which they are shown."""
        full = self.at_full_dimension()
        return [full[name] for name in dict.fromkeys(model.name for model in self.models)]

    @property
    def student(self) -> ModelSummary:
        """The last stage at its largest dimension."""
        return self.at_full_dimension()[self.models[-1].name]

    def model(self, name: str, dimension: int) -> ModelSummary:
        """A model at a dimension."""
        return next(model for model in self.models if (model.name, model.dimension) == (name, dimension))

    def score_columns(self) -> list[str]:
        """What scores are shown by: the tasks, or the task types where there are many tasks."""
        return list(self.task_types if self._shows_tasks else self.models[0].types)

    def shown_scores(self, model: ModelSummary) -> Mapping[str, float]:
        """A model's scores by what they are shown by."""
        return model.scores if self._shows_tasks else model.types

    @property
    def _shows_tasks(self) -> bool:
        return len(self.task_types) <= MOST_TASKS

    def with_speeds(self, speeds: Mapping[str, float | None]) -> Summary:
        """The summary with the measured speed of each model.

        Args:
            speeds: Texts per second by model name; None where it was not measured.
        """
        models = [model.model_copy(update={"texts_per_second": speeds[model.name]}) for model in self.models]
        return self.model_copy(update={"models": tuple(models)})

    def to_json(self) -> str:
        """The content of `report.json`."""
        # `report.json` is hashed. Speeds differ between equal runs, so they are in a file of their own.
        plain = self.model_dump(mode="json", exclude={"models": {"__all__": {"texts_per_second"}}})
        return json.dumps(plain, indent=1) + "\n"

    @classmethod
    def from_json(cls, content: str) -> Summary:
        """The summary that `to_json` wrote.

        Raises:
            ValidationError: The content is of another version of the code.
        """
        return cls.model_validate_json(content)
