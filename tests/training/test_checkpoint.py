"""A stage continues from whole checkpoints only."""

from pathlib import Path

import pytest
import torch
from torch import nn

from stella_assets.storage.errors import DamageError
from stella_assets.training.checkpoint import Checkpoints, Progress


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    weights = {"w": nn.Parameter(torch.zeros(8))}
    found = Checkpoints(tmp_path, weights, torch.optim.AdamW(weights.values()), {"w": torch.zeros(8)})
    for step, best in ((3, 0), (6, 5)):
        found.save_best(best)
        found.save(Progress(step, best_step=best))
    return found


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_the_newest_whole_checkpoint_is_loaded(checkpoints: Checkpoints):
    assert checkpoints.load().step == 6


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "average.safetensors", "progress.json"])
def test_a_damaged_checkpoint_is_passed_over(checkpoints: Checkpoints, name: str):
    flip(checkpoints.folder / "checkpoint-00000006" / name)
    assert checkpoints.load().step == 3
    flip(checkpoints.folder / "checkpoint-00000003" / name)
    assert checkpoints.load() == Progress()


def test_damaged_best_weights_are_not_continued_from_and_not_kept(checkpoints: Checkpoints):
    flip(checkpoints.folder / "best-00000005" / "model.safetensors")
    assert checkpoints.load().step == 3
    with pytest.raises(DamageError, match="best-00000005: is not as it was written"):
        checkpoints.load_best(5)
    checkpoints.load_best(0)


def test_a_stage_without_best_weights_continues(tmp_path: Path):
    weights = {"w": nn.Parameter(torch.zeros(8))}
    kept = Checkpoints(tmp_path, weights, torch.optim.AdamW(weights.values()), None)
    kept.save(Progress(3, best_step=2))
    assert kept.load().step == 3
