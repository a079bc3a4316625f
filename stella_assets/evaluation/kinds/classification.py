"""Classification."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stella_assets.evaluation.kinds.base import TASK_KINDS, TaskKind
from stella_assets.storage.polars import pl

if TYPE_CHECKING:
    from stella_assets.evaluation.samples import Evidence, Samples


@TASK_KINDS.register
class Classification(TaskKind):
    """Texts with a label.

    mteb fits a logistic regression to the vectors of some texts per label, and predicts the labels of the others.

    References:
        Muennighoff et al., "MTEB: Massive Text Embedding Benchmark", arXiv:2210.07316, section 3.2.

    Example:
        In a recipe::

            evaluation:
              custom_tasks:
                - {kind: classification, name: OwnTopics, path: topics.parquet}
    """

    kind: Literal["classification"]

    MTEB_TYPE = "Classification"
    MAIN_SCORE = "accuracy"
    CATEGORY = "t2c"
    COLUMNS = ("text", "label")
    TRAINS = True

    @classmethod
    def dataset(cls, task: Any, place: Path, parts: Mapping[str, pl.DataFrame]) -> Any:
        """Labels as numbers, the same in all splits."""
        from stella_assets.evaluation.local_data import TaskDataError, by_split

        names = sorted({label for part in parts.values() for label in part["label"].to_list()})
        if len(names) < 2:
            raise TaskDataError(
                f"{place}: all rows have the label {names[0]!r}.", "A classification needs two or more."
            )
        # The number of a label depends on all splits: train and test must agree.
        numbers = {name: number for number, name in enumerate(names)}
        return by_split(
            {
                name: pl.DataFrame(
                    {
                        task.input_column_name: part["text"],
                        task.label_column_name: [numbers[label] for label in part["label"]],
                        "label_text": part["label"].cast(pl.String),
                    }
                )
                for name, part in parts.items()
            }
        )

    @classmethod
    def prepare(cls, task: Any) -> None:
        """Let mteb compute scores from an array of labels: scikit-learn reads a lazy column one row at a time."""
        if task.metadata.type == cls.MTEB_TYPE:
            task._calculate_scores = partial(_with_plain_labels, task._calculate_scores)

    @classmethod
    def samples(cls, task: Any, evidence: Evidence) -> Samples:
        """One sample per text: the share of mteb's experiments that predicted its label."""
        import numpy as np

        from stella_assets.evaluation.samples import NO_SAMPLES, Samples, sample

        rows = []
        if task.metadata.main_score != cls.MAIN_SCORE:
            return NO_SAMPLES
        for subset, split, predictions, data in evidence.predictions(task):
            gold = np.array(data[task.label_column_name][:])
            if any(len(experiment) != len(gold) for experiment in predictions):  # cross-validation
                return NO_SAMPLES
            # mteb's accuracy is the mean over experiments and texts, so the mean of these shares is the score.
            right = (np.array(predictions) == gold).mean(axis=0)
            rows += [sample(subset, split, number, value) for number, value in enumerate(right)]
        return Samples("mean", rows)


def _with_plain_labels(calculate: Any, labels: Any, predicted: Any) -> Any:
    import numpy as np

    # `[:]` reads the column in one piece.
    return calculate(np.asarray(labels[:]), predicted)
