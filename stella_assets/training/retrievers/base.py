"""What every kind of retriever has: what it begins with and learns from, and how it trains."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple, Protocol, Self

from pydantic import Field, model_validator

from stella_assets.core.config import ConfigModel, Fraction, Gain, ModelSource, Name, Positive, Weight
from stella_assets.core.errors import UserError
from stella_assets.core.manifest import Manifest
from stella_assets.core.models import check_files, load_tokenizer, model_folder, read_shape
from stella_assets.core.registry import Registry
from stella_assets.core.step import Estimate, Size
from stella_assets.students.retriever import Retriever
from stella_assets.training.retrievers.list_losses import ListLosses
from stella_assets.training.sizes import MAX_BATCH_TEXTS, STATES

if TYPE_CHECKING:
    from torch import Tensor, nn

    from stella_assets.core.devices import Compute
    from stella_assets.training.retrievers.lists import ListBatch

Rate = Annotated[float, Field(gt=0, le=1)]
DEPTH = 100
"""Documents of a query that are kept of a ranking: what a reranker gets at most, and what precision is a mean over."""


class RetrieverError(UserError):
    """A retriever that cannot be trained as the recipe says."""


class Row(NamedTuple):
    """What goes through the model by itself.

    Attributes:
        task: `query` or `document`, or whatever a kind tells apart. Rows of different tasks are in different passes.
        text: A text, or a pair of texts.
    """

    task: str
    text: str | tuple[str, str]


class Trainee(Retriever, Protocol):
    """A retriever that trains."""

    def groups(self) -> Sequence[tuple[Sequence[nn.Parameter], bool]]:
        """The parameters that train, and whether they are new, as a head is."""

    def rows(self, batch: ListBatch) -> list[Row]:
        """What goes through the model for a batch."""

    def outputs(self, rows: Sequence[Row]) -> list[Tensor]:
        """What the model gives for some rows of one task, in one pass: a float32 tensor per row, with gradients."""

    def scores(self, outputs: Sequence[Tensor], batch: ListBatch) -> Tensor:
        """Of each query with its own candidates, `[B, C]`.

        Args:
            outputs: Of all rows of the batch, in their order.
            batch: The lists. Entries without a candidate may get any finite score.
        """

    def save(self, folder: Path) -> None:
        """Write the files that sentence-transformers and `RetrieverConfig.load` read."""


class BatchScores(Protocol):
    """A retriever whose scores of each query with every document of a batch cost little."""

    def all_scores(self, outputs: Sequence[Tensor], batch: ListBatch) -> Tensor:
        """Of each query with each document, `[B, M]`.

        Args:
            outputs: Of all rows of the batch, in their order.
            batch: The lists.
        """


class RetrieverConfig(ConfigModel):
    """Settings that all kinds of retrievers share. A kind adds its own, and the literal field `kind`.

    Attributes:
        code_version: Part of the identity of the retrievers of a kind: a new value trains them again.
        reads: Which scores its losses may read; see `ListLoss.reads`.
        pipeline_tag: What the hub calls its task.
        tags: Of its card.
    """

    code_version: ClassVar[str] = "1"
    reads: ClassVar[tuple[str, ...]] = ("list",)
    pipeline_tag: ClassVar[str]
    tags: ClassVar[tuple[str, ...]] = ()

    name: Name = Field(description="of the retriever; its steps are `retriever/<name>` and so on")
    kind: str
    # Excluded where they are not given, so that they are in the identity of those only who use them.
    start: ModelSource | None = Field(
        None,
        description="a model to begin with, as `{model: ..., revision: ...}`; the encoder of the last stage by default",
        exclude_if=lambda start: start is None,
    )
    scores: Name | None = Field(None, description="name of the `pair_scores` to learn from, for losses that do")
    losses: ListLosses = Field(description="weights of the losses, e.g. `{kl: 1, contrastive: 0.2}`")
    candidates: Annotated[int, Field(ge=1, le=1000)] = Field(
        8, description="documents of a list at most: what answers the query, then negatives by rank"
    )
    batch_size: Annotated[int, Field(ge=1, le=16_384)] = Field(16, description="queries per batch, each with its list")
    micro_batch_size: Annotated[int, Field(ge=1, le=16_384)] | None = Field(
        None, description="texts whose activations are in memory at once; the losses still see the whole batch"
    )
    steps: Positive | None = Field(None, description="steps to train; or give `epochs`")
    epochs: Annotated[float, Field(gt=0, le=10_000)] | None = Field(None, description="passes over the training lists")
    learning_rate: Rate = Field(description="peak learning rate")
    head_learning_rate: Rate | None = Field(None, description="of what is new, e.g. a projection, where it differs")
    warmup: Fraction = Field(0.1, description="share of the steps in which the learning rate rises")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="how the learning rate falls after that"
    )
    min_lr_ratio: Fraction = Field(0.1, description="share of the learning rate that the schedule ends with")
    weight_decay: Weight = Field(0.01, description="of AdamW; biases and normalisation scales do not decay")
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(1.0, description="gradients are clipped to this norm")
    checkpoint_selection: Literal["best", "last"] = Field(
        "best", description="the checkpoint with the lowest dev loss, or the last"
    )
    checkpoint_every: Positive = Field(100, description="steps between two checkpoints and two dev measurements")

    min_gain: dict[Literal["Retrieval", "Reranking"], Gain] = Field(
        {},
        description="nDCG@10 points, by task type, that it must rank better than the last stage to be released; by "
        "default the difference is only reported",
        exclude_if=lambda gains: not gains,
    )

    @model_validator(mode="after")
    def _require_consistent(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give one of `steps` and `epochs`")
        for loss in self.losses.weighted():
            if loss.reads not in self.reads:
                raise ValueError(
                    f"{loss.loss} compares a query with all documents of a batch, which kind {self.kind} cannot afford"
                )
            if loss.learns_scores and self.scores is None:
                raise ValueError(f"{loss.loss} learns from scores; set `scores` to the name of some `pair_scores`")
            if loss.least > self.candidates:
                raise ValueError(f"{loss.loss} needs lists of {loss.least}; `candidates` is {self.candidates}")
        if self.scores is not None and not self.learns_scores:
            raise ValueError("scores has no effect: none of `losses` learns from scores")
        documents = self.batch_size * self.candidates
        if documents > MAX_BATCH_TEXTS:
            raise ValueError(
                f"{self.batch_size:,} lists of {self.candidates:,} candidates are {documents:,} documents a batch, and "
                f"{MAX_BATCH_TEXTS:,} fit in memory; lower one of them"
            )
        if self.candidates == 1 and self.batch_size == 1:
            raise ValueError("batches of 1 query with lists of 1 candidate have nothing to compare")
        return self

    @property
    def learns_scores(self) -> bool:
        """Whether a loss learns from scores."""
        return any(loss.learns_scores for loss in self.losses.weighted())

    @property
    def least(self) -> int:
        """Candidates that a list needs."""
        return max(loss.least for loss in self.losses.weighted())

    @property
    def longest(self) -> int:
        """Tokens of the longest input; see `check`."""
        return 1

    @property
    def dimension(self) -> int:
        """Dimensions of its vectors; 1 for a kind that gives a score and no vectors."""
        return 1

    @property
    def reranks(self) -> int | None:
        """Documents of a first step that it ranks; None for a kind that has vectors to search all documents with."""
        return None

    @property
    def indexed_split(self) -> str | None:
        """The split whose documents are indexed, for a kind that searches; None for all documents."""
        return "test"

    @property
    def trusts_code(self) -> bool:
        """Whether the model that it began with may bring code of its own; see `begun_with`."""
        return self.start is not None and self.start.trust_remote_code

    def begun_with(self, source: ModelSource) -> Self:
        """The same, with the model that it begins with where it has none of its own.

        Args:
            source: The base model of the student.
        """
        return self if self.start else self.model_copy(update={"start": source})

    def check(self, student: ModelSource) -> None:
        """Find out what a run would fail on later, from the files of the model that it begins with.

        Args:
            student: The base model of the student, whose encoder it takes where it has no other.

        Raises:
            UserError: The model cannot be used, or texts are longer than it takes.
        """
        source = self.start or student
        if source.on_hub:  # its configuration is not known without a download
            return
        check_files(model_folder(source))
        load_tokenizer(source)
        shape = read_shape(source)
        if shape.positions and self.longest > shape.positions:
            raise RetrieverError(
                f"retriever {self.name!r}: texts of {self.longest} tokens are above the {shape.positions} positions of "
                f"{source.model}.",
                "Lower the lengths of the retriever.",
            )

    @property
    def texts_per_list(self) -> int:
        """What goes through the model for a list: the query and its candidates."""
        return 1 + self.candidates

    def estimate(self, last: Manifest | None, size: Size | None) -> Estimate:
        """What training it would cost, from the last artefact of its like.

        Args:
            last: Manifest of that artefact; None where there is none.
            size: Of the corpus, as there is a list for each pair; None where it is not known.
        """
        metrics = last.metrics if last else {}
        lists = (size.pairs if size else None) or metrics.get("lists_train")
        steps = self.steps or (max(1, round(self.epochs * lists / self.batch_size)) if self.epochs and lists else None)
        passes = "pass" if self.epochs == 1 else "passes"
        work = f"{steps:,} steps of {self.batch_size} lists" if steps else f"{self.epochs:g} {passes} over the lists"
        seconds, done = None, metrics.get("lists_seen")
        if last and steps and done:
            seconds = float(last.run_info["seconds"]) * steps * self.batch_size / done
        disk = metrics.get("parameters", 0) * 4 * STATES / 2**20 or None
        return Estimate(work, seconds, disk_mib=disk, steps=steps)

    @abstractmethod
    def describe(self) -> str:
        """What it trains, in a sentence of Markdown."""

    @abstractmethod
    def how_to_score(self) -> str:
        """Python code for its card: loads `path/to/this/folder` with sentence-transformers alone, and leaves the scores
        of `queries` with `documents` as the matrix `scores`."""

    @abstractmethod
    def initialise(self, source: ModelSource, saved: Path | None, seed: int, compute: Compute) -> Trainee:
        """The retriever before training.

        Args:
            source: The model that it begins with, and how that is loaded.
            saved: A folder that was saved from this model, to load in its place: the student after its last stage.
            seed: Of what is new.
            compute: Where it computes.

        Returns:
            The retriever, on the device of `compute`, without dropout.

        Raises:
            UserError: The model cannot be used with these settings.
        """

    @abstractmethod
    def load(self, folder: Path, compute: Compute) -> Retriever:
        """Read a retriever from the folder that `Trainee.save` wrote.

        Args:
            folder: That sentence-transformers loads.
            compute: Where it computes.
        """


RETRIEVERS: Registry[RetrieverConfig] = Registry("retriever")
