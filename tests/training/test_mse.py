"""The loss `mse`: what it is by definition, and that a recipe can use it."""

import pytest
import torch
from torch.nn.functional import mse_loss as mse_of_torch
from torch.nn.functional import normalize

from stella_assets.training.head_losses import HeadLosses
from stella_assets.training.losses.mse import mse_loss


def test_mse_is_the_mean_over_texts_and_dimensions_of_unit_vectors():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (normalize(torch.randn(5, 7, generator=generator), dim=1) for _ in range(2))
    torch.testing.assert_close(mse_loss(student, teacher), mse_of_torch(student, teacher))
    cosine = (1 - (student * teacher).sum(dim=1)).mean().item()
    assert mse_loss(student, teacher).item() == pytest.approx(2 * cosine / 7)


def test_a_recipe_can_add_mse_to_cosine_as_nvidia_does():
    losses = HeadLosses.model_validate({"cosine": 1, "mse": 1.0})
    assert [loss.loss for loss in losses.losses] == ["cosine", "mse"]
