"""The training loop of a retriever.

Shapes: B lists of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stella_assets.core.progress import Pace, duration, progress_bar
from stella_assets.core.step import Log
from stella_assets.training.checkpoint import Checkpoints
from stella_assets.training.curve import LOGGED_STEPS, curve_rows, mean_values, shown_values
from stella_assets.training.dead_losses import Watch
from stella_assets.training.divergence import require_sound
from stella_assets.training.optimiser import adamw, learning_rate_factor, set_learning_rate
from stella_assets.training.plan import BatchPlan
from stella_assets.training.read_ahead import Stopwatch
from stella_assets.training.retrievers.base import RetrieverConfig, Trainee
from stella_assets.training.retrievers.gradients import ListGradients
from stella_assets.training.retrievers.lists import CandidateLists, ListBatch
from stella_assets.training.retrievers.together import Together

DEV_LISTS, DEV_BATCH = 256, 32
"""Dev lists that a retriever is measured on at most, and in batches of which size: losses over batches depend on it."""


@dataclass(frozen=True)
class TrainedRetriever:
    """The result of a training.

    Attributes:
        log: One row per measured value, of the table `training_log`.
        steps: Steps in all.
        lists: Lists seen, repetitions included.
        kept_step: Steps after which the kept weights were reached.
        resumed_at: The step at which this run began.
        lists_per_second: In this run.
    """

    log: list[dict[str, Any]]
    steps: int
    lists: int
    kept_step: int
    resumed_at: int
    lists_per_second: float


class RetrieverTraining:
    """A training that continues from the newest checkpoint in the scratch folder.

    The batch of a step depends only on the seed and the step and there is no dropout, so a run that was killed and
    resumed ends with the same bits as an undisturbed one on the same processor.

    Args:
        name: For logs and messages.
        settings: How it trains.
        retriever: Trained in place; it ends with the weights that are kept.
        data: Lists of the splits `train` and `dev`.
        seed: Of the order of the lists.
        scratch: Where checkpoints are.
        log: For people.
        state: The processes that train together (accelerate's `PartialState`); None for this one alone.
    """

    def __init__(
        self,
        name: str,
        settings: RetrieverConfig,
        retriever: Trainee,
        data: Mapping[str, CandidateLists],
        seed: int,
        scratch: Path,
        log: Log,
        state: Any = None,
    ) -> None:
        self.name, self.settings, self.retriever, self.log, self.scratch = name, settings, retriever, log, scratch
        self.train = data["train"]
        # Lists count alike, however long their texts are.
        self.plan = BatchPlan(np.ones(len(self.train), dtype=np.int64), seed, batch_size=settings.batch_size)
        self.steps = settings.steps or self.plan.steps(round((settings.epochs or 0) * len(self.train)))
        rates = settings.learning_rate, settings.head_learning_rate or settings.learning_rate
        groups = [(parameters, rates[new]) for parameters, new in retriever.groups()]
        self.optimizer = adamw(groups, settings.weight_decay)
        self.trained = {name: p for name, p in retriever.model.named_parameters() if p.requires_grad}
        self.checkpoints = Checkpoints(scratch / "checkpoints", self.trained, self.optimizer, None)
        losses = settings.losses.weighted()
        together = Together(state) if state is not None and state.num_processes > 1 else None
        self.gradients = ListGradients(retriever, losses, settings.micro_batch_size, together)
        self.state, self.writes = state, state is None or state.is_main_process
        measured = min(DEV_LISTS, len(data["dev"]))
        self.dev = [
            data["dev"].batch(np.arange(start, min(start + DEV_BATCH, measured)))
            for start in range(0, measured, DEV_BATCH)
        ]
        self.constant = self._constant()
        self.progress = self.checkpoints.load()
        self.values: dict[str, float] = {}

    def run(self) -> TrainedRetriever:
        """Train to the end.

        Raises:
            DivergedError: The loss or a gradient is not finite, or the loss exploded; the message names the step, the
                queries and the last good checkpoint.
            DeadLossError: A loss teaches nothing; the message names it.
        """
        first = self.progress.step
        self.gradients.watch = Watch(first)
        # The loss before is what divergence and the check `dev_loss_fell` compare with; a resumed run has it.
        if first == 0:
            self._measure(0)
        clock, pace = Stopwatch(), Pace()
        recent: list[dict[str, float]] = []
        with progress_bar(self.steps, self.name, "steps", done=first, lines=False) as bar:
            for step in range(first + 1, self.steps + 1):
                self.values = self._step(step)
                recent.append(self.values)
                self.progress.step, self.progress.texts = step, self.progress.texts + self.settings.batch_size
                bar.update()
                bar.note(shown_values(self.values))
                is_checkpoint = step % self.settings.checkpoint_every == 0 or step == self.steps
                # The mean of recent steps is never carried over a checkpoint, so a resumed run logs the same rows.
                if is_checkpoint or len(recent) >= self.steps / LOGGED_STEPS:
                    self._log("train", mean_values(recent))
                    recent.clear()
                # Measured before saved: a checkpoint then holds the log and the best step up to itself.
                if is_checkpoint:
                    self._measure(step)
                # None after the last step: the artefact is written right away.
                if is_checkpoint and step < self.steps:
                    self.checkpoints.save(self.progress, writes=self.writes)
                if self.writes and (pace.due() or step == self.steps):
                    self.log.info(self._line(clock.seconds, first))
        kept = self.progress.best_step if self.settings.checkpoint_selection == "best" else self.steps
        self.checkpoints.load_best(kept)
        speed = (self.steps - first) * self.settings.batch_size / clock.seconds
        return TrainedRetriever(self.progress.log, self.steps, self.progress.texts, kept, first, speed)

    def _step(self, step: int) -> dict[str, float]:
        """One step of the optimiser, counting from 1; returns the value of each term."""
        rows = self.plan.positions(step - 1)
        set_learning_rate(self.optimizer, learning_rate_factor(self.settings, step - 1, self.steps))
        self.optimizer.zero_grad(set_to_none=True)
        values = self.gradients.backward(self.train.batch(rows))
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), self.settings.max_grad_norm)
        start = next(row["value"] for row in self.progress.log if row["split"] == "dev" and row["term"] == "total")
        # Before the weights change: a checkpoint never holds the result of a bad step.
        require_sound(
            self.name,
            step,
            values["total"],
            float(norm),
            start,
            self.constant,
            lambda: self.train.ids(rows),
            self.scratch,
        )
        self.optimizer.step()
        if self.gradients.watch:
            self.gradients.watch.require_alive(self.name)
        return values

    def _measure(self, step: int) -> None:
        """Measure on dev lists, and keep the weights if they are the best so far, or the last."""
        found = [(batch, *self.gradients.scores(batch)) for batch in self.dev]
        values = self._means([(batch, self.gradients.values((own, every), batch)) for batch, own, every in found])
        first = sum(int(_answer_is_first(batch, own).sum()) for batch, own, _ in found) / sum(map(len, self.dev))
        total = values.pop("total")
        self._log("dev", {**values, "answer_first": first, "total": total})
        better = total < self.progress.best_loss
        if better:
            self.progress.best_loss, self.progress.best_step = total, step
        # Ties keep the earlier step, as the comparison is strict.
        if better if self.settings.checkpoint_selection == "best" else step == self.steps:
            self.checkpoints.save_best(step, writes=self.writes)
        # All processes read the best checkpoint at the end; the one that writes must have finished by then.
        if self.state is not None:
            self.state.wait_for_everyone()

    def _constant(self) -> float:
        """The loss of a retriever that scores all documents alike."""
        zeros = [(torch.zeros(batch.place_BC.shape), torch.zeros(batch.answers_BM.shape)) for batch in self.dev]
        found = [(batch, self.gradients.values(zero, batch)) for batch, zero in zip(self.dev, zeros, strict=True)]
        return self._means(found)["total"]

    def _means(self, found: Sequence[tuple[ListBatch, Mapping[str, torch.Tensor]]]) -> dict[str, float]:
        """Mean of each term over the lists, and `total`, last."""
        count = sum(len(batch) for batch, _ in found)
        terms = {name: sum(float(values[name].sum()) for _, values in found) / count for name in found[0][1]}
        return {**terms, "total": sum(terms.values())}

    def _log(self, split: str, values: Mapping[str, float]) -> None:
        step = self.progress.step
        rate = self.settings.learning_rate * learning_rate_factor(self.settings, max(0, step - 1), self.steps)
        self.progress.log += curve_rows(self.name, step, split, values, rate)

    def _line(self, seconds: float, first: int) -> str:
        step = self.progress.step
        speed = (step - first) * self.settings.batch_size / seconds
        left = seconds / max(1, step - first) * (self.steps - step)
        dev = [row for row in self.progress.log if row["split"] == "dev"][-1]
        return (
            f"{self.name}: step {step:,} of {self.steps:,}, loss {shown_values(self.values)}, "
            f"dev {dev['value']:.4g} at step {dev['step']:,}; {speed:,.1f} lists/s, {duration(left)} left"
        )


def _answer_is_first(batch: ListBatch, score_BC: torch.Tensor) -> torch.Tensor:
    """Whether no candidate scores above what answers the query, `[B]`."""
    score_BC = score_BC.cpu().masked_fill(~batch.there_BC, -torch.inf)
    return score_BC[:, 0] >= score_BC.max(dim=1).values
