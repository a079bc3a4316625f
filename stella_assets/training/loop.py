"""The training loop of one stage."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType
from torch import Tensor

from stella_assets.core.devices import processes
from stella_assets.core.progress import progress_bar
from stella_assets.recipe import Stage
from stella_assets.students.dense import Student, encoder_layers
from stella_assets.training.checkpoint import Checkpoints, Progress, gathered, optimizer_tensors, whole
from stella_assets.training.data import Batch, Reading, Stopwatch, TrainingData, read_ahead
from stella_assets.training.frozen import frozen_states
from stella_assets.training.gradients import Gradients
from stella_assets.training.measure import Measurement, measure_spread
from stella_assets.training.optimiser import Average, learning_rate_factor, make_optimizer, set_learning_rate
from stella_assets.training.plan import GROUP_COST, BatchPlan
from stella_assets.training.targets import teacher_part

LOGGED_STEPS = 2000
"""Points of a curve that are kept; with more steps a point is a mean of several."""
EXPLODED = 4.0
"""A loss this many times the one that the stage began with will not come back."""
SAID_EVERY = 30.0
"""Seconds after which the run's log gets a line, checkpoint or not."""


class DivergedError(ValueError):
    """A loss that is not a number any more, or far above where it began."""


@dataclass(frozen=True)
class Trained:
    """What came of a stage.

    Attributes:
        log: One row a measured value, of the table `training_log`.
        optimizer: Its state at the end.
        steps: Steps of the stage.
        texts: Texts seen, repetitions included.
        kept_step: Steps after which the kept weights were there.
        resumed_at: The step at which this run of it began.
        texts_per_second: In this run of it.
        tokens_per_second: In this run of it, padding not counted.
        waiting: Share of the time that was spent waiting for data.
    """

    log: list[dict[str, Any]]
    optimizer: dict[str, Tensor]
    steps: int
    texts: int
    kept_step: int
    resumed_at: int
    texts_per_second: float
    tokens_per_second: float
    waiting: float


def train_stage(
    student: Student,
    stage: Stage,
    name: str,
    data: Mapping[str, TrainingData],
    seed: int,
    scratch: Path,
    on_progress: Callable[[str], None],
) -> Trained:
    """Train what the stage trains, going on from the newest checkpoint in `scratch`.

    The batch of a step depends on `seed` and the step alone and there is no dropout, so a run that was killed and
    resumed ends with the same bits as an undisturbed one on the same processor.

    Args:
        student: Trained in place; ends with the weights that the stage keeps.
        stage: What trains, on which losses, for how long and how.
        name: For the log.
        data: Splits `train` and `dev`.
        seed: Of the order of the texts.
        scratch: Where checkpoints go.
        on_progress: Told a line in plain words at each checkpoint, and every half minute.

    Raises:
        DivergedError: The loss or a gradient is not finite, or the loss exploded; the message names the step, the texts
            and the last good checkpoint.
    """
    return _Training(student, stage, name, data, seed, scratch, on_progress).run()


class _Training:
    """The state of one stage while it trains."""

    def __init__(
        self,
        student: Student,
        stage: Stage,
        name: str,
        data: Mapping[str, TrainingData],
        seed: int,
        scratch: Path,
        on_progress: Callable[[str], None],
    ) -> None:
        self.kept, self.stage, self.name, self.train = student, stage, name, data["train"]
        self.scratch, self.say = scratch, on_progress
        dims = [student.dims[0], *(dim for dim in student.dims[1:] if stage.matryoshka_weights(dim))]
        student.train_only(stage.train_layers, dims, embeddings=stage.train_embeddings)
        student.prepare_training()
        if stage.gradient_checkpointing:
            student.checkpoint_activations()
        self.plan = BatchPlan(self.train.lengths, seed, batch_size=stage.batch, batch_tokens=stage.batch_tokens)
        self.steps = stage.steps or self.plan.steps(stage.texts or 0)
        # Encoders have parameters that no vector depends on, such as BERT's pooler.
        self.accelerator = Accelerator(
            cpu=processes().device.type == "cpu",
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        self.states_NH = self._frozen_states()  # while each process has the whole encoder
        spreads = self.accelerator.distributed_type == DistributedType.FSDP
        self.student = copy.deepcopy(student) if spreads else student  # FSDP takes a model apart for good
        model, self.optimizer = self.accelerator.prepare(self.student, make_optimizer(self.student, stage))
        self.trained = {n: p for n, p in self.student.named_parameters() if p.requires_grad}
        self.average = Average(stage.ema_decay, self.trained) if stage.ema_decay else None
        averages = self.average.tensors if self.average else None
        self.checkpoints = Checkpoints(scratch / "checkpoints", self.trained, self.optimizer, averages)
        spread = measure_spread(self.train, stage)
        part = teacher_part(self.train.snapshot.layout, stage.teachers)
        self.gradients = Gradients(self.accelerator, model, stage, dims, part, spread, self.states_NH)
        self.measure = Measurement(stage, dims[0], data["dev"], spread, self.accelerator.device)
        self.progress = Progress()
        self.said: dict[str, float] = {}

    @property
    def writes(self) -> bool:
        """Whether this process writes files and talks."""
        return bool(self.accelerator.is_main_process)

    def run(self) -> Trained:
        """Train to the end."""
        self.progress = self.checkpoints.load()
        first, before, tokens = self.progress.step, self.progress.texts, 0
        if first == 0:
            self._measure(0)
        clock, last_said = Stopwatch(), time.monotonic()
        recent: list[dict[str, float]] = []
        with progress_bar(self.steps, self.name, "steps", done=first) as bar:
            for step, batch in enumerate(clock.watch(self._batches(first)), first + 1):
                self.said = self._step(step, batch)
                recent.append(self.said)
                self.progress.step, self.progress.texts = step, self.progress.texts + len(batch.positions_B)
                tokens += batch.tokens
                bar.update()
                bar.set_postfix_str(_shown(self.said), refresh=False)
                rests = step % self.stage.checkpoint_every == 0 or step == self.steps
                if rests or len(recent) >= self.steps / LOGGED_STEPS:
                    self._log("train", {term: _mean(recent, term) for term in self.said})
                    recent.clear()
                if rests:
                    self._measure(step)
                if rests and step < self.steps:
                    self.checkpoints.save(self.progress, writes=self.writes)
                if self.writes and (rests or time.monotonic() - last_said > SAID_EVERY):
                    last_said = time.monotonic()
                    self.say(self._line(clock.seconds, first, self.progress.texts - before, tokens))
        texts = self.progress.texts - before
        return self._finish(first, texts / clock.seconds, tokens / clock.seconds, clock.waiting / clock.seconds)

    def _finish(self, first: int, texts_per_second: float, tokens_per_second: float, waiting: float) -> Trained:
        """Leave the student with the weights that the stage keeps."""
        optimizer = whole(optimizer_tensors(self.optimizer, self.trained).items())
        kept = self.progress.best_step if self.stage.checkpoint_selection == "best" else self.steps
        self.checkpoints.load_best(kept)
        if self.kept is not self.student:
            self.kept.load_state_dict(whole(self.student.state_dict().items()))
        log = self.progress.log
        return Trained(
            log, optimizer, self.steps, self.progress.texts, kept, first, texts_per_second, tokens_per_second, waiting
        )

    def _batches(self, first: int) -> Iterator[Batch]:
        place = self.accelerator.process_index, self.accelerator.num_processes
        cost = GROUP_COST[self.accelerator.device.type]
        reading = Reading(cost, self.stage.micro_batch_size, self.states_NH is None, *place)

        def read(steps: Sequence[int]) -> list[Batch]:
            return self.train.read([self.plan.positions(step) for step in steps], reading)

        return read_ahead(read, range(first, self.steps))

    def _step(self, step: int, batch: Batch) -> dict[str, float]:
        """One step of the optimiser, counting from 1; gives the value of each term."""
        set_learning_rate(self.optimizer, self._rate_factor(step))
        self._unfreeze(step)
        self.optimizer.zero_grad(set_to_none=True)
        values = self.gradients.backward(batch).values()
        norm = self.accelerator.clip_grad_norm_(list(self.trained.values()), self.stage.max_grad_norm)
        self._require_sound(step, values["total"], gathered(norm).item(), batch)
        self.optimizer.step()
        if self.average:
            self.average.update(step)
        return values

    def _rate_factor(self, step: int) -> float:
        return learning_rate_factor(self.stage, max(0, step - 1), self.steps)

    def _unfreeze(self, step: int) -> None:
        """With progressive unfreezing, the layers that have joined by now; what comes before the layers joins last."""
        if not self.stage.unfreeze_fraction:
            return
        stack = list(encoder_layers(self.student.transformer))
        joining = len(stack) if self.stage.train_layers == "all" else self.stage.train_layers
        joined = int(1 + joining * (step - 1) / (self.stage.unfreeze_fraction * self.steps))
        resting = {id(p) for layer in stack[: max(0, len(stack) - joined)] for p in layer.parameters()}
        in_stack = {id(p) for layer in stack for p in layer.parameters()}
        for name, parameter in self.trained.items():
            in_encoder = not name.startswith("heads.")
            below = in_encoder and id(parameter) not in in_stack and joined <= len(stack)
            parameter.requires_grad_(id(parameter) not in resting and not below)

    def _require_sound(self, step: int, loss: float, norm: float, batch: Batch) -> None:
        start = next(row["value"] for row in self.progress.log if row["split"] == "dev" and row["term"] == "total")
        if math.isfinite(loss) and math.isfinite(norm) and loss <= EXPLODED * max(start, 1e-6):
            return
        ids, good = self.train.ids(batch.positions_B), self.checkpoints.newest()
        path = self.scratch / "diverged.json"
        path.write_text(
            json.dumps({"step": step, "loss": repr(loss), "gradient_norm": repr(norm), "ids": ids}, indent=1)
        )
        raise DivergedError(
            f"{self.name}: the loss is {loss:.4g} with a gradient of norm {norm:.4g} at step {step}; it began with "
            f"{start:.4g}. Texts: {', '.join(ids[:3])} and {len(ids) - 3} more, all in {path}. Last good checkpoint: "
            f"{good or 'none yet'}. Lower `learning_rate`, or look at these texts."
        )

    def _measure(self, step: int) -> None:
        """Measure on the dev split, and keep the weights if they are the best so far, or the last."""
        with self.average.applied() if self.average else nullcontext():
            values = self.measure(self.gradients.project)
            self._log("dev", values)
            better = values["total"] < self.progress.best_loss
            if better:
                self.progress.best_loss, self.progress.best_step = values["total"], step
            if better if self.stage.checkpoint_selection == "best" else step == self.steps:
                self.checkpoints.save_best(step, writes=self.writes)
        self.accelerator.wait_for_everyone()

    def _log(self, split: str, values: Mapping[str, float]) -> None:
        step = self.progress.step
        rate = (self.stage.learning_rate or 0.0) * self._rate_factor(step)
        self.progress.log += [
            {"stage": self.name, "step": step, "split": split, "term": term, "value": value, "learning_rate": rate}
            for term, value in values.items()
        ]

    def _line(self, seconds: float, first: int, texts: int, tokens: int) -> str:
        step = self.progress.step
        left = seconds / max(1, step - first) * (self.steps - step)
        dev = [row for row in self.progress.log if row["split"] == "dev"][-1]
        return (
            f"{self.name}: step {step:,} of {self.steps:,}, loss {_shown(self.said)}, dev {dev['value']:.4g} at step "
            f"{dev['step']:,}; {texts / seconds:,.0f} texts/s, {tokens / seconds:,.0f} tokens/s, {_duration(left)} left"
        )

    def _frozen_states(self) -> np.ndarray | None:
        """A frozen encoder that would see texts repeatedly reads each of them once."""
        seen = self.steps * len(self.plan.positions(0))
        if self.stage.train_layers != 0 or seen <= len(self.train):
            return None
        with self.accelerator.main_process_first():
            return frozen_states(self.kept, self.train, self.scratch / "pooled.npy")


def _mean(rows: Sequence[Mapping[str, float]], term: str) -> float:
    return sum(row[term] for row in rows) / len(rows)


def _shown(values: Mapping[str, float]) -> str:
    """`8.61 (640/cosine 0.31, ...)`."""
    terms = ", ".join(f"{name} {value:.3g}" for name, value in values.items() if name != "total")
    return f"{values['total']:.4g} ({terms})"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
