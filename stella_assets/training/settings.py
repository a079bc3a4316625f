"""The recipe's part on the student and its stages."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from stella_assets.core.config import ConfigModel, Fraction, ModelSource, Positive, Weight


class Student(ModelSource):
    """The model to train: a transformers encoder, its pooling, and its heads."""

    keep_layers: tuple[Annotated[int, Field(ge=0)], ...] | Positive | None = Field(
        None, description="the layers to keep, or how many, spread evenly; all when left out"
    )
    pooling: Literal["mean", "cls", "lasttoken"] = "mean"
    max_length: Positive = 512
    matryoshka_dims: tuple[Positive, ...] = (1024, 512, 256)
    matryoshka_heads: Literal["independent", "prefix"] = Field(
        "independent", description="heads of their own, or the first dimensions of the teacher head"
    )
    head_hidden: Positive | None = Field(None, description="hidden dimensions of a two-layer head (SiLU); else linear")
    prompts: dict[str, str] = Field({}, description="by name; they are part of the release")
    query_prompts: tuple[str, ...] = Field((), description="prompts put before training queries, by hash of the text")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.matryoshka_dims)) < len(self.matryoshka_dims):
            raise ValueError(f"matryoshka_dims {list(self.matryoshka_dims)} names a dimension twice")
        if isinstance(self.keep_layers, tuple) and sorted(set(self.keep_layers)) != list(self.keep_layers):
            raise ValueError(f"keep_layers {list(self.keep_layers)} must rise, each layer once, counting from 0")
        if unknown := [name for name in self.query_prompts if name not in self.prompts]:
            raise ValueError(f"query_prompts names {unknown[0]!r}, which `prompts` does not have")
        return self

    def kept_layers(self, available: int) -> tuple[int, ...]:
        """The layers to keep of a model that has `available`, counting from 0.

        Raises:
            ValueError: The model has fewer.
        """
        match self.keep_layers:
            case None:
                return tuple(range(available))
            case int(count) if count <= available:
                return tuple(round(i * (available - 1) / max(1, count - 1)) for i in range(count))
            case tuple(layers) if layers[-1] < available:
                return layers
        shown = list(self.keep_layers) if isinstance(self.keep_layers, tuple) else self.keep_layers
        raise ValueError(f"keep_layers {shown}: {self.model} has layers 0 to {available - 1}. Name those.")


LOSSES = ("cosine", "l2", "angular", "similarity", "relative_similarity")
POINTWISE = ("cosine", "l2", "angular")
"""Losses that compare a student's vector with the teachers' vector of the same text, and so need equal dimensions."""


class LossWeights(ConfigModel):
    """Weights of the losses; 0 leaves a loss out. The published ones are those of arXiv 2412.19048, section 3.2."""

    cosine: Weight = 0.0
    l2: Weight = 0.0
    angular: Weight = 0.0
    similarity: Weight = 0.0
    relative_similarity: Weight = 0.0
    margin: Weight = 0.015
    margin_needs_gap: bool = Field(False, description="leave out comparisons whose teacher gap is within the margin")
    normalize_by_teacher_std: bool = Field(
        False, description="weights and margin count in units of the teachers' own similarity spread, not of cosine"
    )

    @property
    def weights(self) -> dict[str, float]:
        """The losses that count, with their weights."""
        return {name: getattr(self, name) for name in LOSSES if getattr(self, name)}

    @property
    def pairwise(self) -> bool:
        """Whether a loss compares texts with one another."""
        return any(name not in POINTWISE for name in self.weights)

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.weights:
            raise ValueError("every weight is 0, so nothing would be learnt; give one of the losses a weight")
        return self


class MatryoshkaLossWeights(LossWeights):
    """A short head has other dimensions than the teachers, so the losses that compare vector with vector are out."""

    cosine: Literal[0] = 0
    l2: Literal[0] = 0
    angular: Literal[0] = 0


def _each_or_by_dimension(matryoshka_heads: Any) -> str:
    keyed = (
        isinstance(matryoshka_heads, dict) and matryoshka_heads and all(str(key).isdigit() for key in matryoshka_heads)
    )
    return "by_dimension" if keyed else "each"


MatryoshkaHeads = Annotated[
    Annotated[MatryoshkaLossWeights, Tag("each")]
    | Annotated[dict[Positive, MatryoshkaLossWeights], Tag("by_dimension")],
    Discriminator(_each_or_by_dimension),
]
SMALLEST_BATCH = 16
Rate = Annotated[float, Field(gt=0, le=1)]
Guide = Literal["teachers", "full_head"]


class Stage(ConfigModel):
    """One stage of training: what trains, on which losses, for how long and how."""

    method: Literal["descent", "closed_form"] = Field(
        "descent", description="gradient descent, or ridge regression of the teacher head on a frozen encoder"
    )
    train_layers: Annotated[int, Field(ge=0)] | Literal["all"] = Field(description="last encoder layers that train")
    train_embeddings: bool = Field(True, description="whether token embeddings train when all layers do")
    unfreeze_fraction: Fraction = Field(
        0.0, description="share of the steps over which the layers join, the last one first; 0 has all of them at once"
    )
    teachers: tuple[str, ...] | None = Field(None, description="teachers to learn from, by name; all when left out")
    full_head: LossWeights
    matryoshka_heads: MatryoshkaHeads | None = Field(None, description="losses of every short head, or by dimension")
    matryoshka_targets: Annotated[tuple[Guide, ...], Field(min_length=1)] = ("teachers",)
    batch_size: Annotated[int, Field(ge=3)] | None = None
    batch_tokens: Annotated[int, Field(ge=64)] | None = None
    steps: Positive | None = None
    texts: Positive | None = Field(None, description="texts to see, instead of steps")
    min_steps: Positive | None = Field(
        None, description=f"make a batch smaller, down to {SMALLEST_BATCH} texts, where `texts` would be fewer steps"
    )
    learning_rate: Rate | None = None
    head_learning_rate: Rate | None = Field(None, description="of the heads, where it differs")
    warmup: Fraction = Field(0.1, description="share of the steps in which the learning rate rises")
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    min_lr_ratio: Fraction = Field(0.1, description="share of the learning rate that the schedule ends with")
    weight_decay: Weight = 0.01
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="decay of an exponential moving average of the weights, which is then what is kept"
    )
    micro_batch_size: Positive | None = Field(
        None, description="texts whose activations are in memory at once; the losses see the whole batch all the same"
    )
    gradient_checkpointing: bool = False
    checkpoint_selection: Literal["best", "last"] = Field(
        "best", description="the checkpoint with the lowest dev loss, or the last"
    )
    checkpoint_every: Positive = Field(100, description="steps between two checkpoints and two dev measurements")

    @model_validator(mode="before")
    @classmethod
    def _default_batch(cls, raw: Any) -> Any:
        if (
            isinstance(raw, dict)
            and raw.get("method") != "closed_form"
            and not {"batch_size", "batch_tokens"} & raw.keys()
        ):
            return {**raw, "batch_size": 128}
        return raw

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.method == "closed_form":
            self._check_solved()
        else:
            self._check_trained()
        return self

    def _check_solved(self) -> None:
        if self.train_layers != 0:
            raise ValueError(
                f"method closed_form needs a frozen encoder: set train_layers to 0, not {self.train_layers}"
            )
        used = {"method", "train_layers", "teachers", "full_head", "texts"}
        fields = type(self).model_fields
        idle = [name for name in fields if name not in used and getattr(self, name) != fields[name].default]
        if idle:
            raise ValueError(f"method closed_form takes no {idle[0]}; remove it, or train")

    def _check_trained(self) -> None:
        if (self.steps is None) == (self.texts is None):
            raise ValueError("give either `steps` or `texts`")
        if self.batch_size is not None and self.batch_tokens is not None:
            raise ValueError("give either `batch_size` or `batch_tokens`")
        if self.learning_rate is None:
            raise ValueError("learning_rate is required")
        if self.texts is not None and self.batch_size is not None and self.texts < self.batch_size:
            raise ValueError(f"texts {self.texts} is less than one batch of {self.batch_size}")
        if self.matryoshka_targets != ("teachers",) and not self.matryoshka_heads:
            raise ValueError("matryoshka_targets says nothing without `matryoshka_heads`")
        if self.min_steps and (self.texts is None or self.batch_size is None):
            raise ValueError("min_steps needs `texts` and `batch_size`")
        if self.unfreeze_fraction and self.train_layers == 0:
            raise ValueError("unfreeze_fraction says nothing with train_layers 0")

    @property
    def batch(self) -> int | None:
        """Texts of a batch, as `min_steps` allows."""
        if self.batch_size is None or self.texts is None or self.min_steps is None:
            return self.batch_size
        return min(self.batch_size, max(SMALLEST_BATCH, self.texts // self.min_steps))

    @property
    def counts_in_spread(self) -> bool:
        """Whether losses of the stage are in units of the teachers' spread."""
        short = self.matryoshka_heads.values() if isinstance(self.matryoshka_heads, dict) else [self.matryoshka_heads]
        return any(weights.normalize_by_teacher_std for weights in (self.full_head, *short) if weights)

    def matryoshka_weights(self, dim: int) -> MatryoshkaLossWeights | None:
        """The losses of one short head; None where it does not train."""
        return self.matryoshka_heads.get(dim) if isinstance(self.matryoshka_heads, dict) else self.matryoshka_heads
