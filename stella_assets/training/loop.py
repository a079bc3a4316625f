"""The training loop of one stage."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType
from torch import Tensor

from stella_assets.core.progress import Pace, duration, progress_bar
from stella_assets.training.checkpoint import Checkpoints, Progress, gathered, optimizer_tensors, whole
from stella_assets.training.curve import LOGGED_STEPS, curve_rows, mean_values, shown_values
from stella_assets.training.data import Batch, Reading
from stella_assets.training.dead_losses import Watch
from stella_assets.training.divergence import require_sound
from stella_assets.training.frozen import frozen_states
from stella_assets.training.gradients import Gradients
from stella_assets.training.measure import Measurement, measure_spread
from stella_assets.training.optimiser import Average, learning_rate_factor, make_optimizer, set_learning_rate
from stella_assets.training.plan import GROUP_COST, BatchPlan
from stella_assets.training.read_ahead import Stopwatch, read_ahead
from stella_assets.training.stages.base import StageContext
from stella_assets.training.stages.descent import Descent
from stella_assets.training.unfreezing import unfreeze


@dataclass(frozen=True)
class Trained:
    """The result of a stage.

    Attributes:
        log: One row per measured value, of the table `training_log`.
        optimizer: Its state at the end.
        steps: Steps of the stage.
        batch_size: Texts of a batch, or pairs in a stage that reads pairs; None where batches are counted in tokens.
        texts: Texts seen, repetitions included.
        kept_step: Steps after which the kept weights were reached.
        resumed_at: The step at which this run of it began.
        texts_per_second: In this run of it.
        tokens_per_second: In this run of it, padding not counted.
        waiting: Share of the time that was spent waiting for data.
        encoded_per_second: Texts that a frozen encoder read once, before training; None where it did not.
    """

    log: list[dict[str, Any]]
    optimizer: dict[str, Tensor]
    steps: int
    batch_size: int | None
    texts: int
    kept_step: int
    resumed_at: int
    texts_per_second: float
    tokens_per_second: float
    waiting: float
    encoded_per_second: float | None = None


def train(stage: Descent, context: StageContext) -> Trained:
    """Train what the stage trains, continuing from the newest checkpoint in the scratch folder.

    The batch of a step depends only on the seed and the step and there is no dropout, so a run that was killed and
    resumed ends with the same bits as an undisturbed one on the same processor.

    Args:
        stage: What trains, on which losses, for how long and how.
        context: The student, which is trained in place and ends with the weights that the stage keeps, and the data.

    Returns:
        The log, the optimiser's state, and how fast it went.

    Raises:
        DivergedError: The loss or a gradient is not finite, or the loss exploded; the message names the step, the texts
            and the last good checkpoint.
        DeadLossError: A loss teaches nothing; the message names it.
        BatchSizeError: There are fewer texts than one batch takes.
    """
    return _Training(stage, context).run()


class _Training:
    """The state of one stage while it trains."""

    def __init__(self, stage: Descent, context: StageContext) -> None:
        self.stage, self.context, self.name, self.train = stage, context, context.name, context.data["train"]
        student = context.student
        objective = stage.objective(student.dimensions)
        # The order matters: what trains decides what the optimiser gets, and wrapping for several processes comes last.
        stage.prepare(student)
        self.feed = stage.feed(context, "train")
        texts, self.batch_size = stage.texts_to_see(len(self.feed)), stage.texts_per_batch(len(self.feed))
        sizes = {"batch_size": self.batch_size, "batch_tokens": stage.batch_tokens}
        self.plan = BatchPlan(self.feed.lengths, context.seed, **sizes)
        self.steps = stage.steps or self.plan.steps(texts or 0)
        # Encoders have parameters that no vector depends on, such as BERT's pooler.
        self.accelerator = Accelerator(
            cpu=context.compute.device.type == "cpu",
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        self.encoded_per_second: float | None = None
        self.states_NH = self._frozen_states()  # while each process has the whole encoder
        shards = self.accelerator.distributed_type == DistributedType.FSDP
        self.student = copy.deepcopy(student) if shards else student  # FSDP takes a model apart for good
        # The optimiser is made before `prepare`, which puts the sharded parameters in place of those that it holds.
        model, self.optimizer = self.accelerator.prepare(self.student, make_optimizer(self.student, stage))
        # By name, while all of them take gradients: unfreezing turns some off for a while.
        self.trained = self.student.trained_parameters()
        self.average = Average(stage.ema_decay, self.trained) if stage.ema_decay else None
        averages = self.average.tensors if self.average else None
        self.checkpoints = Checkpoints(context.scratch / "checkpoints", self.trained, self.optimizer, averages)
        spread = measure_spread(self.train)
        self.constant = objective.constant_loss(spread)
        in_parts = stage.micro_batch_size is not None
        self.gradients = Gradients(
            self.accelerator, model, objective, context.part, spread, self.states_NH, in_parts=in_parts
        )
        self.measure = Measurement(objective, stage.feed(context, "dev"), spread, self.accelerator.device)
        self.progress = Progress()
        self.last_values: dict[str, float] = {}

    @property
    def writes(self) -> bool:
        """Whether this process writes files and log lines."""
        return bool(self.accelerator.is_main_process)

    def run(self) -> Trained:
        """Train to the end."""
        self.progress = self.checkpoints.load()
        first, before, tokens = self.progress.step, self.progress.texts, 0
        self.gradients.watch = Watch(first)
        # The loss before the stage is what divergence and the check `dev_loss_fell` compare with; a resumed run has it.
        if first == 0:
            self._measure(0)
        # After the first measurement: speeds are those of training.
        clock, pace = Stopwatch(), Pace()
        recent: list[dict[str, float]] = []
        with progress_bar(self.steps, self.name, "steps", done=first, lines=False) as bar:
            for step, batch in enumerate(clock.watch(self._batches(first)), first + 1):
                self.last_values = self._step(step, batch)
                recent.append(self.last_values)
                self.progress.step, self.progress.texts = step, self.progress.texts + len(batch.positions_B)
                tokens += batch.tokens
                bar.update()
                bar.note(shown_values(self.last_values))
                is_checkpoint = step % self.stage.checkpoint_every == 0 or step == self.steps
                # The mean of recent steps is never carried over a checkpoint, so a resumed run logs the same rows.
                if is_checkpoint or len(recent) >= self.steps / LOGGED_STEPS:
                    self._log("train", mean_values(recent))
                    recent.clear()
                # Measured before saved: a checkpoint then holds the log and the best step up to itself.
                if is_checkpoint:
                    self._measure(step)
                # None after the last step: the stage is written right away.
                if is_checkpoint and step < self.steps:
                    self.checkpoints.save(self.progress, writes=self.writes)
                if self.writes and (pace.due() or step == self.steps):
                    self.context.log.info(self._line(clock.seconds, first, self.progress.texts - before, tokens))
        texts = self.progress.texts - before
        return self._finish(first, texts / clock.seconds, tokens / clock.seconds, clock.waiting / clock.seconds)

    def _finish(self, first: int, texts_per_second: float, tokens_per_second: float, waiting: float) -> Trained:
        """Give the student the weights that the stage keeps."""
        # Of the last step, whichever weights are kept; gathering needs every process, so it is done by all.
        optimizer = whole(optimizer_tensors(self.optimizer, self.trained).items())
        kept = self.progress.best_step if self.stage.checkpoint_selection == "best" else self.steps
        self.checkpoints.load_best(kept)
        if self.context.student is not self.student:
            self.context.student.load_state_dict(whole(self.student.state_dict().items()))
        done = self.progress
        return Trained(
            done.log,
            optimizer,
            self.steps,
            self.batch_size,
            done.texts,
            kept,
            first,
            texts_per_second,
            tokens_per_second,
            waiting,
            self.encoded_per_second,
        )

    def _batches(self, first: int) -> Iterator[Batch]:
        place = self.accelerator.process_index, self.accelerator.num_processes
        cost = GROUP_COST[self.accelerator.device.type]
        reading = Reading(cost, self.stage.micro_batch_size, self.states_NH is None, *place)

        def read(steps: Sequence[int]) -> list[Batch]:
            return self.feed.read([self.plan.positions(step) for step in steps], reading)

        # From the step to resume at: earlier batches are computed from the seed, not read and thrown away.
        return read_ahead(read, range(first, self.steps))

    def _step(self, step: int, batch: Batch) -> dict[str, float]:
        """One step of the optimiser, counting from 1; returns the value of each term."""
        set_learning_rate(self.optimizer, self._rate_factor(step))
        if self.stage.unfreeze_fraction:
            over = self.stage.unfreeze_fraction * self.steps
            unfreeze(self.student, self.trained, self.stage.train_layers, step - 1, over)
        # None and not zeros: AdamW skips parameters without a gradient, so layers that are still frozen do not decay.
        self.optimizer.zero_grad(set_to_none=True)
        values = self.gradients.backward(batch).values()
        norm = self.accelerator.clip_grad_norm_(list(self.trained.values()), self.stage.max_grad_norm)
        start = next(row["value"] for row in self.progress.log if row["split"] == "dev" and row["term"] == "total")
        loss, gradient_norm = values["total"], gathered(norm).item()
        # Before the weights change: a checkpoint never holds the result of a bad step.
        require_sound(
            self.name,
            step,
            loss,
            gradient_norm,
            start,
            self.constant,
            lambda: self.train.ids(batch.positions_B),
            self.context.scratch,
        )
        self.optimizer.step()
        if self.average:
            self.average.update(step)
        if self.gradients.watch:
            self.gradients.watch.require_alive(self.name)
        return values

    def _rate_factor(self, step: int) -> float:
        return learning_rate_factor(self.stage, max(0, step - 1), self.steps)

    def _measure(self, step: int) -> None:
        """Measure on the dev split, and keep the weights if they are the best so far, or the last."""
        # With averaged weights, if the stage keeps some: what is measured is what is kept.
        with self.average.applied() if self.average else nullcontext():
            values = self.measure(self.gradients.project)
            self._log("dev", values)
            better = values["total"] < self.progress.best_loss
            if better:
                self.progress.best_loss, self.progress.best_step = values["total"], step
            # Ties keep the earlier step, as the comparison is strict.
            if better if self.stage.checkpoint_selection == "best" else step == self.steps:
                self.checkpoints.save_best(step, writes=self.writes)
        # All processes read the best checkpoint at the end; the one that writes must have finished by then.
        self.accelerator.wait_for_everyone()

    def _log(self, split: str, values: Mapping[str, float]) -> None:
        step = self.progress.step
        rate = self.stage.learning_rate * self._rate_factor(step)
        self.progress.log += curve_rows(self.name, step, split, values, rate)

    def _line(self, seconds: float, first: int, texts: int, tokens: int) -> str:
        step = self.progress.step
        left = seconds / max(1, step - first) * (self.steps - step)
        dev = [row for row in self.progress.log if row["split"] == "dev"][-1]
        return (
            f"{self.name}: step {step:,} of {self.steps:,}, loss {shown_values(self.last_values)}, "
            f"dev {dev['value']:.4g} at step {dev['step']:,}; {texts / seconds:,.0f} texts/s, "
            f"{tokens / seconds:,.0f} tokens/s, {duration(left)} left"
        )

    def _frozen_states(self) -> np.ndarray | None:
        """A frozen encoder that would see texts repeatedly reads each of them once."""
        # An estimate where batches are counted in tokens, as the first batch stands for all.
        seen = self.steps * len(self.plan.positions(0))
        if self.stage.train_layers != 0 or seen <= len(self.train):
            return None
        # One process computes the file, the others find it: two writers would overwrite each other's draft.
        path, clock = self.context.scratch / "pooled.npy", time.monotonic()
        there = path.exists()
        with self.accelerator.main_process_first():
            states_NH = frozen_states(self.context.student, self.train, path)
        if not there:
            self.encoded_per_second = len(self.train) / (time.monotonic() - clock)
        return states_NH
