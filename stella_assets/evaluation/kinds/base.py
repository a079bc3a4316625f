"""What every kind of evaluation task defines: mteb's class for it, its local files, and the samples of a score."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

from pydantic import Field

from stella_assets.core.config import PathAware
from stella_assets.core.registry import Registry
from stella_assets.storage.polars import pl

if TYPE_CHECKING:
    from mteb.types import PromptType

    from stella_assets.evaluation.local_data import Splits
    from stella_assets.evaluation.samples import Evidence, Samples

TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=128)]
Sides = Mapping[str, "PromptType | None"]
"""mteb's prompt type of the texts on the side `query` and on the side `document`."""


class TaskKind(PathAware):
    """A custom task. Its subclasses are the kinds: each knows mteb's class, the local files and the samples.

    The methods are class methods, because mteb's own tasks have a kind, too, and no settings.

    Attributes:
        MTEB_TYPE: mteb's task type.
        MAIN_SCORE: mteb's name of the main score.
        CATEGORY: mteb's category: what is compared with what.
        COLUMNS: Columns of the local file, in addition to `split`.
        TRAINS: Whether the rows of the split `train` are read, too.
        WRITES_PREDICTIONS: Whether the samples come from mteb's prediction files.

    Example:
        A third party adds a kind by a subclass in an installed package::

            @TASK_KINDS.register
            class Summarization(TaskKind):
                '''Summaries, ranked by their similarity to the text.'''

                kind: Literal["summarization"]
                MTEB_TYPE = "Summarization"
    """

    kind: str
    name: TaskName = Field(description="of the task; not the name of one of mteb's tasks in `tasks`")
    path: str = Field(description="a Parquet file, or a folder of them where the kind needs several")
    instruction: str = Field("", description="the meaning of `{instruction}` in a prompt on this task")

    MTEB_TYPE: ClassVar[str]
    MAIN_SCORE: ClassVar[str]
    CATEGORY: ClassVar[str] = "t2t"
    COLUMNS: ClassVar[tuple[str, ...]] = ()
    TRAINS: ClassVar[bool] = False
    WRITES_PREDICTIONS: ClassVar[bool] = True

    @classmethod
    def mteb_class(cls) -> type:
        """mteb's class for tasks of this kind: the one that it names after the type."""
        from mteb import abstasks

        found: type = getattr(abstasks, f"AbsTask{cls.MTEB_TYPE}")
        return found

    @classmethod
    def matches(cls, task: Any) -> bool:
        """Whether one of mteb's tasks is of this kind."""
        return isinstance(task, cls.mteb_class())

    @classmethod
    def attributes(cls) -> Mapping[str, Any]:
        """What a task of this kind sets in addition to its metadata."""
        return {}

    @classmethod
    def new_task(cls, name: str, description: str, instruction: str = "") -> Any:
        """An instance of mteb's class under another name, without data.

        Args:
            name: Of the task.
            description: For mteb's metadata.
            instruction: For prompts with `{instruction}`; mteb's own for the task type, if empty.

        Returns:
            An instance of a new class, which can be scored after `fill`.
        """
        from mteb.abstasks.task_metadata import TaskMetadata

        metadata = TaskMetadata(
            name=name,
            description=description,
            # None lets mteb fall back to the instruction of the task type.
            prompt=instruction or None,
            type=cast("Any", cls.MTEB_TYPE),
            category=cast("Any", cls.CATEGORY),
            modalities=["text"],
            # The metadata must name a data set; `fill` sets the data, so this one is never looked up.
            dataset={"path": f"local/{name}", "revision": "local"},
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score=cls.MAIN_SCORE,
            # mteb validates these fields, too; none of them changes a score.
            license="not specified",
            annotations_creators="derived",
            sample_creation="found",
        )
        # mteb reads metadata from the class, so each task needs a class of its own.
        return type(name, (cls.mteb_class(),), {"metadata": metadata, **cls.attributes()})()

    @classmethod
    def files(cls, place: Path) -> Mapping[Path, tuple[str, ...]]:
        """The local files of a task, with the columns that each needs.

        Args:
            place: The file or folder that the recipe names.
        """
        return {place: cls.COLUMNS}

    @classmethod
    def check_files(cls, place: Path) -> None:
        """Make sure that the files exist and have the columns, without reading their rows.

        Raises:
            TaskDataError: A file is missing, is not a Parquet file, or lacks a column.
        """
        from stella_assets.evaluation.local_data import check_columns

        for path, columns in cls.files(place).items():
            check_columns(path, columns)

    @classmethod
    def fill(cls, task: Any, place: Path, splits: Splits) -> None:
        """Give a task its data from local files.

        Args:
            task: An instance of one of mteb's task classes.
            place: The file or folder.
            splits: For a split of mteb's, the splits of the file that are read as it; itself when not named.

        Raises:
            TaskDataError: A column is missing, a split is empty, has no labels or too few, or a text is missing.
        """
        from stella_assets.evaluation.local_data import read_table, rows_of_split

        names = list(task.eval_splits)
        if cls.TRAINS and task.train_split not in names:
            # mteb lists only scored splits; its classifiers read `train` in addition.
            names.insert(0, task.train_split)
        frame = read_table(place, cls.COLUMNS)
        task.dataset = cls.dataset(task, place, {name: rows_of_split(place, frame, name, splits) for name in names})
        # Else mteb would load the data set that the metadata names.
        task.data_loaded = True

    @classmethod
    def dataset(cls, task: Any, place: Path, parts: Mapping[str, pl.DataFrame]) -> Any:
        """The data in the shape that mteb's class expects.

        Args:
            task: Its attributes name the columns.
            place: The file or folder, for messages.
            parts: Rows by mteb's split, with the columns `COLUMNS`.

        Raises:
            TaskDataError: The rows cannot be scored, e.g. with one label only.
        """
        raise NotImplementedError

    @classmethod
    def prepare(cls, task: Any) -> None:
        """Change a task after its data was loaded."""

    @classmethod
    def prompt_sides(cls, task: Any) -> Sides:
        """Which prompts the texts of a task get: those of queries, of documents, or neither.

        Args:
            task: An instance of one of mteb's task classes.
        """
        # Tasks of pairs have a prompt type per column; tasks of single texts have none.
        return {side: getattr(task, f"input{i}_prompt_type", None) for i, side in enumerate(("query", "document"), 1)}

    @classmethod
    def samples(cls, task: Any, evidence: Evidence) -> Samples:
        """What the score of a task consists of.

        Args:
            task: With its data.
            evidence: What mteb's evaluation left behind.

        Returns:
            The statistic and the samples; no samples where mteb does not provide enough.
        """
        raise NotImplementedError


TASK_KINDS = Registry[TaskKind]("task")


def kind_of(task: Any) -> type[TaskKind] | None:
    """The kind of one of mteb's tasks, the most specific one; None where no kind matches.

    Kinds are asked in reverse order of registration: a subclass registers after its base.
    """
    return next((kind for kind in reversed(list(TASK_KINDS)) if kind.matches(task)), None)
