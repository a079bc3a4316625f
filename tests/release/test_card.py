"""What the model card tells people to do gives them the right vectors."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stella_assets.core.devices import Compute
from stella_assets.release.card import how_to_use
from stella_assets.release.settings import ReleaseSettings
from stella_assets.students import DenseConfig
from tests.conftest import TINY
from tests.models import TEXTS


def settings(model: Path, **changes: object) -> DenseConfig:
    given = {**TINY["student"], "model": str(model), "keep_layers": None, "matryoshka_dims": [3, 2], **changes}
    return DenseConfig.model_validate(given)


def run_card(card: str, folder: Path) -> list[Any]:
    """The models that the card's code blocks end with, when the folder's path is filled in and nothing else."""
    models = []
    for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        names: dict[str, Any] = {}
        exec(block.replace("path/to/this/folder", str(folder)), names)  # noqa: S102 (the card's own code)
        models.append(names["model"])
    return models


@pytest.mark.parametrize("form", [{}, {"head_hidden": 12}, {"matryoshka_heads": "prefix"}])
def test_the_code_of_the_card_gives_the_default_and_another_dimension(published, tmp_path: Path, form: dict[str, Any]):
    config = settings(published("bert"), **form)
    student = config.initialise(24, 0, Compute())
    student.dtype = "float32"
    student.save(tmp_path, student.head_of(3), config.prompts)
    release = ReleaseSettings(dimension=3, licence="MIT")
    default, other = run_card(how_to_use(config, release, list(student.dimensions.values())), tmp_path)
    for model, dim in ((default, 3), (other, 24)):
        expected = student.encode(TEXTS[:6], student.head_of(dim))
        np.testing.assert_allclose(model.encode(TEXTS[:6]), expected, atol=1e-5)


def test_the_card_names_both_folders_of_a_head_of_two_layers(tmp_path: Path):
    config = settings(tmp_path, head_hidden=12)
    card = how_to_use(config, ReleaseSettings(dimension=3, licence="MIT"), [24, 3, 2])
    assert "in place of `2_Dense_3` and `3_Dense_3`" in card
    alone = how_to_use(config, ReleaseSettings(dimension=3, licence="MIT"), [3])
    assert "Another dimension" not in alone


def test_the_card_says_whether_the_models_own_code_has_to_be_trusted(tmp_path: Path):
    release = ReleaseSettings(dimension=3, licence="MIT")
    assert "trust_remote_code" not in how_to_use(settings(tmp_path), release, [3])
    trusted = settings(tmp_path, trust_remote_code=True, revision="0" * 40)
    card = how_to_use(trusted, release, [24, 3])
    assert card.count('SentenceTransformer("path/to/this/folder", trust_remote_code=True)') == 2
