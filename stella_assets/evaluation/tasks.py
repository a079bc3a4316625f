"""A task of mteb's together with the place of its data."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from stella_assets.evaluation.kinds import TaskKind, kind_of
from stella_assets.evaluation.local_data import Splits, TaskDataError, content_digest

Kind = type[TaskKind]
Origin = Literal["held_out", "custom", "local", "hub"]


@dataclass(frozen=True)
class EvaluationTask:
    """A task, and where its data is.

    Attributes:
        task: The instance of mteb's class, without data.
        origin: `held_out` from the corpus, `custom`, or mteb's with data from a `local` folder or from the `hub`.
        place: The local file or folder.
        reads_files: Whether the local files have the layout of the task's kind. Else mteb's own class reads them, in
            the layout of the hub.
        splits: Which of a local file's splits are read as which of mteb's.
        benchmarks: The benchmarks of the recipe that contain it.
        parts: The tasks that an aggregate task is the mean of; empty for any other task.
    """

    task: Any
    origin: Origin
    place: Path | None = None
    reads_files: bool = False
    splits: Splits = field(default_factory=dict)
    benchmarks: tuple[str, ...] = ()
    parts: tuple[EvaluationTask, ...] = ()

    @property
    def name(self) -> str:
        """mteb's name of it."""
        return str(self.task.metadata.name)

    @property
    def type(self) -> str:
        """mteb's task type."""
        return str(self.task.metadata.type)

    @cached_property
    def kind(self) -> Kind | None:
        """Its kind; None for one of mteb's tasks that no kind matches."""
        return kind_of(self.task)

    def in_benchmarks(self, benchmarks: tuple[str, ...]) -> EvaluationTask:
        """The same task as a part of these benchmarks."""
        return replace(self, benchmarks=benchmarks)

    def scored_parts(self) -> tuple[EvaluationTask, ...]:
        """The tasks that are evaluated: its parts, or itself."""
        return self.parts or (self,)

    def revision(self) -> str:
        """The hub's commit that mteb pins, or `local-` and a digest of the files."""
        if self.parts:
            return "+".join(part.revision() for part in self.parts)
        # 64 bits of the digest: enough to notice a change, short enough for a table.
        return str(self.task.metadata.revision) if self.place is None else f"local-{content_digest(self.place)[:16]}"

    def describe(self) -> dict[str, Any]:
        """What a score depends on in addition to the model: the task, the revision of its data, and the used part."""
        return {
            "task": self.name,
            "type": self.type,
            "revision": self.revision(),
            # Benchmarks score the same data set on other subsets and splits, which is another score.
            "subsets": list(self.task.hf_subsets),
            "splits": list(self.task.eval_splits),
            "splits_of_files": {name: list(splits) for name, splits in self.splits.items()},
        }

    def check_files(self) -> None:
        """Make sure that the local files exist and have the columns of the kind.

        Raises:
            TaskDataError: A file is missing, is not a Parquet file, or lacks a column.
        """
        if self.reads_files:
            kind, place = self._layout()
            kind.check_files(place)

    def load(self) -> Any:
        """The task with its data, after mteb's own checks.

        Raises:
            TaskDataError: The data does not exist, or cannot be used.
        """
        task = fresh(self.task)
        if self.place is not None:
            # mteb passes the path to `datasets`, which reads a local folder like one of the hub.
            dataset = {**task.metadata.dataset, "path": str(self.place), "revision": self.revision()}
            task.metadata = task.metadata.model_copy(update={"dataset": dataset})
        if self.reads_files:
            kind, place = self._layout()
            kind.fill(task, place, self.splits)
        else:
            _load_by_mteb(task)
        if self.kind is not None:
            self.kind.prepare(task)
        return task

    def _layout(self) -> tuple[Kind, Path]:
        assert self.kind is not None, "a task without a kind is read by mteb"
        assert self.place is not None, "local files have a place"
        return self.kind, self.place


def fresh(task: Any) -> Any:
    """A copy of a task with its random state as it was before any evaluation: some tasks draw from a running stream.

    Args:
        task: That is never evaluated itself, so that its state does not move.
    """
    again = copy.copy(task)
    # Only the state is copied deeply: the data set is shared, and may be many gigabytes.
    again.rng_state, again.np_rng = copy.deepcopy((task.rng_state, task.np_rng))
    return again


def _load_by_mteb(task: Any) -> None:
    try:
        task.load_data()
    except (OSError, ValueError, KeyError) as error:  # what the hub's client and datasets raise
        raise TaskDataError(
            f"mteb task {task.metadata.name}: its data cannot be loaded ({' '.join(str(error).split())[:200]}).",
            "Connect to the hub, or give a folder that contains the data as `evaluation.data`.",
        ) from None
