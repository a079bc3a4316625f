"""The training loop of one stage."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stella_assets.progress import progress_bar
from stella_assets.recipe import Stage
from stella_assets.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from stella_assets.training.data import Batch, TrainingData
from stella_assets.training.objective import stage_loss
from stella_assets.training.student import Student

DEV_TEXTS = 512


class DivergedError(ValueError):
    """A loss that is not a number any more."""


@dataclass(frozen=True)
class Trained:
    """What came of a stage."""

    log: list[dict[str, Any]]
    optimizer: torch.optim.Optimizer
    texts_per_second: float
    resumed_at: int


def learning_rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then half a cosine down to a tenth."""
    warm = max(1, round(stage.warmup * stage.steps))
    if step < warm:
        return stage.learning_rate * (step + 1) / warm
    progress = (step - warm) / max(1, stage.steps - warm)
    return stage.learning_rate * (0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2)


def make_optimizer(student: Student, stage: Stage) -> torch.optim.Optimizer:
    """AdamW over what trains; biases and normalisation scales do not decay."""
    training = [p for p in student.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in training if p.ndim > 1], "weight_decay": stage.weight_decay},
        {"params": [p for p in training if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=stage.learning_rate)


def train_stage(
    student: Student,
    stage: Stage,
    name: str,
    data: dict[str, TrainingData],
    seed: int,
    scratch: Path,
    on_progress: Callable[[str], None],
) -> Trained:
    """Train what the stage trains, going on from the newest checkpoint in `scratch`.

    The batch of a step depends on `seed` and the step alone and there is no dropout, so a run that was killed and
    resumed ends with the same bits as an undisturbed one on the same processor.

    Args:
        student: Trained in place.
        stage: Steps, losses and optimiser settings.
        name: For the log.
        data: Splits `train` and `dev`.
        seed: Of the order of the batches.
        scratch: Where checkpoints go.
        on_progress: Told a line in plain words at each checkpoint.

    Raises:
        DivergedError: The loss is not finite; the message names the step, the texts and the last good checkpoint.
    """
    teacher_dim = data["train"].snapshot.layout.dim
    heads = [int(d) for d in student.heads] if stage.short_heads else [teacher_dim]
    student.train_only(stage.train_layers, heads)
    optimizer = make_optimizer(student, stage)
    checkpoints = scratch / "checkpoints"
    progress = load_checkpoint(checkpoints, student, optimizer)
    log, first = list(progress.log), progress.step
    pool = _pooling(student, stage, data["train"], scratch)
    if first == 0:
        log += _dev_rows(student, stage, name, data["dev"], 0)
    started = time.monotonic()
    with progress_bar(stage.steps, name, "steps", done=first) as bar:
        for step in range(first, stage.steps):
            rate = learning_rate(stage, step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            positions = data["train"].positions(seed, step, stage.batch_texts)
            batch = data["train"].read(positions)
            loss, terms = stage_loss(student, stage, pool(positions, batch), batch.target_BD.to(student.device))
            if not math.isfinite(terms["total"]):
                raise DivergedError(
                    f"{name}: the loss is {terms['total']} at step {step}; texts {', '.join(batch.ids[:3])} and "
                    f"{len(batch.ids) - 3} more. Last good checkpoint: {checkpoints}. Lower `learning_rate`."
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for p in student.parameters() if p.requires_grad], stage.clip_norm)
            optimizer.step()
            log += [_row(name, step + 1, "train", term, value, rate) for term, value in terms.items()]
            bar.update()
            bar.set_postfix(loss=f"{terms['total']:.3f}", refresh=False)
            if (step + 1) % stage.checkpoint_every == 0 and step + 1 < stage.steps:
                dev = _dev_rows(student, stage, name, data["dev"], step + 1)
                log += dev
                save_checkpoint(checkpoints, student, optimizer, Progress(step + 1, log))
                on_progress(
                    f"{name}: step {step + 1} of {stage.steps}, loss {terms['total']:.3f}, dev {dev[-1]['value']:.3f}"
                )
    log += _dev_rows(student, stage, name, data["dev"], stage.steps)
    seconds = max(1e-9, time.monotonic() - started)
    return Trained(log, optimizer, (stage.steps - first) * stage.batch_texts / seconds, first)


def _pooling(
    student: Student, stage: Stage, data: TrainingData, scratch: Path
) -> Callable[[np.ndarray, Batch], Tensor]:
    """How a batch gets its pooled states. A frozen encoder that sees texts repeatedly reads each of them once."""
    if stage.train_layers != 0 or stage.steps * stage.batch_texts <= len(data):
        return lambda _positions, batch: student.pool(batch.texts)
    states_NH = _frozen_states(student, data, scratch / "pooled.npy")
    return lambda positions, _batch: torch.from_numpy(states_NH[positions]).to(student.device)


def _frozen_states(student: Student, data: TrainingData, path: Path, block_texts: int = 8192) -> np.ndarray:
    """Pooled states of a whole split, `[N, H]` float32, in a memory-mapped file that a resumed run finds again."""
    if not path.exists():
        draft = path.with_suffix(".draft.npy")
        states_NH = np.lib.format.open_memmap(draft, mode="w+", dtype=np.float32, shape=(len(data), student.hidden))
        with progress_bar(len(data), "frozen encoder", "texts") as bar:
            for start in range(0, len(data), block_texts):
                positions = np.arange(start, min(start + block_texts, len(data)))
                states_NH[positions] = student.encode_pooled(data.read(positions).texts)
                bar.update(len(positions))
        states_NH.flush()
        draft.rename(path)
    return np.load(path, mmap_mode="r")


def _dev_rows(student: Student, stage: Stage, name: str, dev: TrainingData, step: int) -> list[dict[str, Any]]:
    """Each term's mean over the first texts of the dev split, `total` last."""
    sums: dict[str, float] = {}
    rows = np.arange(min(DEV_TEXTS, len(dev)))
    parts = [rows[s : s + stage.batch_texts] for s in range(0, len(rows), stage.batch_texts)]
    with torch.inference_mode():
        for part in parts:
            batch = dev.read(part)
            terms = stage_loss(student, stage, student.pool(batch.texts), batch.target_BD.to(student.device))[1]
            for term, value in terms.items():
                sums[term] = sums.get(term, 0.0) + value * len(part) / len(rows)
    return [_row(name, step, "dev", term, value, learning_rate(stage, step)) for term, value in sums.items()]


def _row(stage: str, step: int, split: str, term: str, value: float, rate: float) -> dict[str, Any]:
    return {"stage": stage, "step": step, "split": split, "term": term, "value": value, "learning_rate": rate}
