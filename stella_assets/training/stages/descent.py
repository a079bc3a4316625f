"""The method `descent`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from stella_assets.core.config import MOST, Fraction, Positive, Weight
from stella_assets.core.devices import processes
from stella_assets.core.manifest import Manifest
from stella_assets.core.step import Estimate, Size
from stella_assets.students import DenseConfig
from stella_assets.training.head_losses import MatryoshkaHeads, MatryoshkaLosses
from stella_assets.training.sizes import DEV_TEXTS, STATES
from stella_assets.training.stages.base import JASPER, STAGES, Outcome, StageConfig, StageContext, StageError

if TYPE_CHECKING:
    from stella_assets.students.dense.model import DenseStudent
    from stella_assets.training.data import Feed
    from stella_assets.training.losses import LossConfig
    from stella_assets.training.objective import Objective

SMALLEST_BATCH = 16
DEFAULT_BATCH = 128
FEW_STEPS = 10
"""Below as many steps, loading takes most of the time of a stage."""
FORWARD_SPEED = 3
"""How many times as fast texts are measured as trained on: without the pass back, which takes about twice the first."""
OPTIMIZER_FILE = "optimizer.safetensors"
MATRYOSHKA = "[Matryoshka](https://arxiv.org/abs/2205.13147)"
KEPT_RULES = {"best": "lowest dev loss (`total`), the earliest of equal ones", "last": "the last step"}

Rate = Annotated[float, Field(gt=0, le=1)]
Passes = Annotated[float, Field(gt=0, le=10_000)]
Target = Literal["teachers", "full_head"]


def _is_none(value: object) -> bool:
    return value is None


@STAGES.register
class Descent(StageConfig):
    """Gradient descent (AdamW) on the losses of the heads."""

    method: Literal["descent"] = "descent"
    train_embeddings: bool = Field(True, description="whether token embeddings train when all layers do")
    unfreeze_fraction: Fraction = Field(
        0.0, description="share of the steps over which layers start to train, the last one first; 0 starts all at once"
    )
    head_start: Literal["closed_form", "random"] | None = Field(
        None,
        description="how rows of the full head start whose teacher taught no stage before; by default random in the "
        "first stage, and in closed form where a teacher joins",
        exclude_if=_is_none,
    )
    matryoshka_heads: MatryoshkaHeads | None = Field(
        None, description="losses of every Matryoshka head, or by dimension"
    )
    matryoshka_targets: Annotated[tuple[Target, ...], Field(min_length=1)] = Field(
        ("teachers",), description="what Matryoshka heads learn: the teachers' similarities, the full head's, or both"
    )
    batch_size: Annotated[int, Field(ge=3, le=16_384)] | None = Field(
        None, description=f"texts per batch; {DEFAULT_BATCH} where neither this nor `batch_tokens` is given"
    )
    batch_tokens: Annotated[int, Field(ge=64, le=4_194_304)] | None = Field(
        None, description="tokens per batch, in place of texts"
    )
    steps: Positive | None = Field(None, description="steps to train; or give `texts` or `epochs`")
    texts: Positive | None = Field(None, description="texts to see, in place of steps")
    # The next three are excluded where they are not given: a stage of fixed length has the identity that it had before.
    epochs: Passes | None = Field(
        None, description="passes over the training texts, in place of steps", exclude_if=_is_none
    )
    min_texts: Positive | None = Field(
        None, description="texts to see at least, where `epochs` would be fewer", exclude_if=_is_none
    )
    max_texts: Positive | None = Field(
        None, description="texts to see at most, where `epochs` would be more", exclude_if=_is_none
    )
    min_steps: Positive | None = Field(
        None, description=f"make a batch smaller, down to {SMALLEST_BATCH} texts, where there would be fewer steps"
    )
    learning_rate: Rate = Field(description="peak learning rate")
    head_learning_rate: Rate | None = Field(None, description="of the heads, where it differs")
    warmup: Fraction = Field(0.1, description="share of the steps in which the learning rate rises")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="how the learning rate falls after that"
    )
    min_lr_ratio: Fraction = Field(0.1, description="share of the learning rate that the schedule ends with")
    weight_decay: Weight = Field(0.01, description="of AdamW; biases and normalisation scales do not decay")
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(1.0, description="gradients are clipped to this norm")
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="decay of an exponential moving average of the weights, which is then what is kept"
    )
    micro_batch_size: Annotated[int, Field(gt=0, le=16_384)] | None = Field(
        None, description="texts whose activations are in memory at once; the losses still see the whole batch"
    )
    gradient_checkpointing: bool = Field(False, description="compute activations again to save memory")
    checkpoint_selection: Literal["best", "last"] = Field(
        "best", description="the checkpoint with the lowest dev loss, or the last"
    )
    checkpoint_every: Positive = Field(100, description="steps between two checkpoints and two dev measurements")

    # Not the field's default, which would contradict `batch_tokens`; and before validation, as settings are frozen.
    @model_validator(mode="before")
    @classmethod
    def _default_batch(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and not {"batch_size", "batch_tokens"} & raw.keys():
            return {**raw, "batch_size": DEFAULT_BATCH}
        return raw

    @model_validator(mode="after")
    def _require_consistent(self) -> Self:
        if sum(value is not None for value in (self.steps, self.texts, self.epochs)) != 1:
            raise ValueError("give one of `steps`, `texts` and `epochs`")
        if self.epochs is None and (self.min_texts or self.max_texts):
            raise ValueError("min_texts and max_texts limit `epochs`, and have no effect without it")
        if self.min_texts and self.max_texts and self.min_texts > self.max_texts:
            raise ValueError(f"min_texts {self.min_texts} is more than max_texts {self.max_texts}")
        if self.batch_size is not None and self.batch_tokens is not None:
            raise ValueError("give either `batch_size` or `batch_tokens`")
        if self.texts is not None and self.batch_size is not None and self.texts < self.batch_size:
            raise ValueError(f"texts {self.texts} is less than one batch of {self.batch_size}")
        if self.matryoshka_targets != ("teachers",) and not self.matryoshka_heads:
            raise ValueError("matryoshka_targets has no effect without `matryoshka_heads`")
        if self.min_steps and (self.steps is not None or self.batch_size is None):
            raise ValueError("min_steps needs `texts` or `epochs`, and `batch_size`")
        if self.unfreeze_fraction and self.train_layers == 0:
            raise ValueError("unfreeze_fraction has no effect with train_layers 0")
        return self

    def starts_in_closed_form(self, *, joining: bool) -> bool:
        """As `head_start` says; else where a teacher joins. See `StageConfig.starts_in_closed_form`."""
        return joining if self.head_start is None else self.head_start == "closed_form"

    def texts_to_see(self, train: int) -> int | None:
        """Texts that it sees, repetitions included; None where `steps` or tokens decide.

        Args:
            train: Texts to train on.
        """
        if self.epochs is None:
            return self.texts
        return min(max(round(self.epochs * train), self.min_texts or 1), self.max_texts or MOST)

    def texts_per_batch(self, train: int) -> int | None:
        """Texts per batch, as `min_steps` allows; None where batches are counted in tokens.

        Args:
            train: Texts to train on.
        """
        # Small corpora would give a large batch too few steps. Below the floor, losses over pairs have little to
        # compare.
        texts = self.texts_to_see(train)
        if self.batch_size is None or texts is None or self.min_steps is None:
            return self.batch_size
        return min(self.batch_size, max(SMALLEST_BATCH, texts // self.min_steps))

    @property
    def trains_matryoshka_heads(self) -> bool:
        """Whether it trains Matryoshka heads."""
        return bool(self.matryoshka_heads)

    def matryoshka_losses(self, dimension: int) -> MatryoshkaLosses | None:
        """The losses of a Matryoshka head; see `StageConfig.matryoshka_losses`."""
        if isinstance(self.matryoshka_heads, dict):
            return self.matryoshka_heads.get(dimension)
        return self.matryoshka_heads

    def all_losses(self) -> list[LossConfig]:
        """Those of Matryoshka heads, too; see `StageConfig.all_losses`."""
        named = self.matryoshka_heads or {}
        heads = list(named.values()) if isinstance(named, dict) else [named]
        return [loss for head in (self.full_head, *heads) for loss in head.losses]

    def feed(self, context: StageContext, split: str) -> Feed:
        """What its batches are made of.

        Args:
            context: The data.
            split: `train` or `dev`.
        """
        return context.data[split]

    def objective(self, dimensions: Mapping[str, int]) -> Objective:
        """With what Matryoshka heads learn from; see `StageConfig.objective`."""
        return replace(super().objective(dimensions), matryoshka_targets=self.matryoshka_targets)

    def prepare(self, student: DenseStudent) -> None:
        """With its embeddings and checkpointing; see `StageConfig.prepare`."""
        from stella_assets.students.dense.layers import checkpoint_activations, train_only

        heads = self.objective(student.dimensions).heads
        train_only(student, self.train_layers, heads, embeddings=self.train_embeddings)
        if self.gradient_checkpointing:
            checkpoint_activations(student)

    def require_fit(self, place: str, student: DenseConfig) -> None:
        """Losses by dimension are of dimensions that the student has; see `StageConfig.require_fit`."""
        named = self.matryoshka_heads if isinstance(self.matryoshka_heads, dict) else {}
        if unknown := [dimension for dimension in named if dimension not in student.matryoshka_dims]:
            raise ValueError(
                f"{place}.matryoshka_heads names {unknown[0]}, which student.matryoshka_dims does not have"
            )

    def require_data(self, name: str, texts: Mapping[str, int]) -> None:
        """At least one batch; see `StageConfig.require_data`."""
        batch = self.texts_per_batch(texts["train"])
        if batch is not None and texts["train"] < batch:
            raise StageError(
                f"{name}: batch_size {batch} is more than the {texts['train']} training texts.",
                "Lower `batch_size`, or add texts to the corpus.",
            )
        super().require_data(name, texts)

    def describe(self) -> str:
        """See `StageConfig.describe`."""
        trained = {0: "the full head", 1: "the full head and the last layer", "all": "the whole student"}.get(
            self.train_layers, f"the full head and the last {self.train_layers} layers"
        )
        heads = f" and the {MATRYOSHKA} heads" if self.matryoshka_heads else ""
        if self.batch_tokens:
            size = f"{self.batch_tokens:,} tokens"
        else:
            # How far `min_steps` lowers it is known with the corpus where its texts are counted in passes.
            fixed = self.epochs is None or self.min_steps is None
            size = f"{self.texts_per_batch(0)} texts" if fixed else f"at most {self.batch_size} texts"
        return f"Trains {trained}{heads}: {self._length()} in batches of {size}. A stage as in {JASPER}."

    def _length(self) -> str:
        if self.epochs is None:
            return f"{self.steps:,} steps" if self.steps else f"{self.texts:,} texts"
        least = f", at least {self.min_texts:,} texts" if self.min_texts else ""
        most = f", at most {self.max_texts:,} texts" if self.max_texts else ""
        return f"{self.epochs:g} pass{'es' if self.epochs != 1 else ''} over the texts{least}{most},"

    def shortened(self, steps: int, batch_size: int, train: int) -> Self:
        """A few of its own steps, without a checkpoint between them; see `StageConfig.shortened`."""
        batch = self.texts_per_batch(train)
        length = {"texts": None, "epochs": None, "min_texts": None, "max_texts": None, "min_steps": None}
        return self.model_copy(
            update={
                **length,
                "steps": steps,
                "batch_size": min(batch, batch_size) if batch else None,
                # Without its warm-up, a step at the full rate may diverge. What is learnt does not matter.
                "learning_rate": self.learning_rate / 1000,
                "checkpoint_every": max(self.checkpoint_every, steps),
            }
        )

    def estimate(self, last: Manifest | None, size: Size | None) -> Estimate:
        """Steps and texts, and the time by the last run's speed; see `StageConfig.estimate`."""
        metrics = last.metrics if last else {}
        # A length in passes is known with the corpus; that of the last run stands for it.
        train = size.train if size else metrics.get("texts_train", 0)
        known = bool(train) or self.epochs is None
        batch, texts = (self.texts_per_batch(train), self.texts_to_see(train)) if known else (None, None)
        texts = texts or (self.steps * batch if self.steps and batch else None)
        steps = self.steps or (round(texts / batch) if texts and batch else None)
        parts = [f"{steps:,} steps" if steps else "", f"{batch} texts" if batch else ""]
        work = " of ".join(filter(None, parts)) or (f"{texts:,} texts" if texts else self._length().rstrip(","))
        return self._by_last_run(work, last, texts, steps, size)

    def _by_last_run(
        self, work: str, last: Manifest | None, texts: int | None, steps: int | None, size: Size | None
    ) -> Estimate:
        """What `texts` in `steps` take at the speed of the last run; None of either where it is not known."""
        metrics = last.metrics if last else {}
        seconds, disk = None, metrics.get("parameters", 0) * 4 * STATES / 2**20 or None
        if last and metrics.get("steps", FEW_STEPS) < FEW_STEPS and texts:
            seconds = self._seconds_from_few_steps(last, texts, steps or 0, size)
        elif last:
            # By texts where they are known, as the time of a step grows with its batch.
            for wanted, done in ((texts, metrics.get("texts_seen")), (steps, metrics.get("steps"))):
                if wanted and done and seconds is None:
                    seconds = float(last.run_info["seconds"]) * wanted / done
        return Estimate(work, seconds, disk_mib=disk, texts=texts, steps=steps)

    def _seconds_from_few_steps(self, last: Manifest, texts: int, steps: int, size: Size | None) -> float:
        """Of a probe most of the time is loading; its rate is that of training."""
        metrics, seconds = last.metrics, float(last.run_info["seconds"])
        rate = float(metrics["texts_per_second"])
        loading = max(0.0, seconds - metrics["texts_seen"] / rate)
        dev = min(DEV_TEXTS, size.dev) if size else 0
        measured = dev * (1 + steps / self.checkpoint_every)
        # A frozen encoder reads each text once, and then only the heads train.
        if encoded := metrics.get("encoded_per_second"):
            train = size.train if size else metrics["texts_train"]
            loading = max(0.0, loading - metrics["texts_train"] / encoded)
            return float(loading + (min(texts, train) + measured) / encoded + texts / rate)
        return loading + (texts + measured / FORWARD_SPEED) / rate

    def run(self, context: StageContext) -> Outcome:
        """Train in place, continuing from the newest checkpoint; see `stella_assets.training.loop`."""
        from safetensors.torch import save_file

        from stella_assets.training.loop import train

        trained = train(self, context)
        # Every process of a run has the gathered state; two writers of one file would damage it.
        if processes(context.compute).is_main_process:
            save_file(trained.optimizer, context.folder / OPTIMIZER_FILE)
        return Outcome(
            trained.log,
            trained.kept_step,
            {
                "method": self.method,
                "steps": trained.steps,
                "batch_size": trained.batch_size,
                "kept_step": trained.kept_step,
                "kept_rule": KEPT_RULES[self.checkpoint_selection],
                "texts_seen": trained.texts,
                "epochs": round(trained.texts / len(context.data["train"]), 2),
                "texts_per_second": round(trained.texts_per_second, 1),
                "tokens_per_second": round(trained.tokens_per_second),
                "waiting_for_data": round(trained.waiting, 4),
                **({"encoded_per_second": round(encoded, 1)} if (encoded := trained.encoded_per_second) else {}),
                "resumed_at_step": trained.resumed_at,
            },
        )
