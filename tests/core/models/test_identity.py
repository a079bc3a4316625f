"""Two folders that give other vectors have other digests, however their files are named and wherever they lie."""

import shutil
from pathlib import Path

import pytest

from stella_assets.core.config import ModelSource
from stella_assets.core.errors import UserError
from stella_assets.core.models import check_files, code_digest, model_digest
from tests.core.models.folders import WEIGHTS, change_weights, truncate
from tests.models import build


def elsewhere(folder: Path, name: str) -> Path:
    """Move a folder of a model to another place, and leave a link to it."""
    place = folder.parent / f"elsewhere_{name}"
    shutil.move(folder / name, place)
    (folder / name).symlink_to(place)
    return place


def test_weights_behind_a_link_to_a_folder_count(tmp_path: Path):
    folder = build("layout_5", tmp_path)
    whole = model_digest(ModelSource(model=str(folder)))
    place = elsewhere(folder, "2_Dense")
    # The same files give the same vectors, linked or not.
    assert model_digest(ModelSource(model=str(folder))) == whole
    change_weights(place / WEIGHTS, lambda tensors: {name: -value for name, value in tensors.items()})
    assert model_digest(ModelSource(model=str(folder))) != whole
    truncate(place / WEIGHTS)
    with pytest.raises(UserError, match=r"2_Dense/model\.safetensors: is damaged or cut off"):
        check_files(folder)


def test_code_behind_a_link_to_a_folder_counts(tmp_path: Path):
    folder = build("custom_code", tmp_path)
    (folder / "parts").mkdir()
    (folder / "parts" / "rotary.py").write_text("A = 1\n")
    pin = code_digest(folder)
    place = elsewhere(folder, "parts")
    assert code_digest(folder) == pin
    (place / "rotary.py").write_text("A = 2\n")
    assert code_digest(folder) != pin


def test_a_link_to_a_folder_above_has_an_end(tmp_path: Path):
    folder = build("bert", tmp_path)
    whole = model_digest(ModelSource(model=str(folder)))
    (folder / "1_Pooling" / "again").symlink_to(folder)
    assert model_digest(ModelSource(model=str(folder))) == whole


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "bpe.codes", "source.spm", "qwen.tiktoken"])
def test_weights_and_vocabularies_count_in_every_format(name: str, tmp_path: Path):
    folder = build("bert", tmp_path)
    digests = {model_digest(ModelSource(model=str(folder)))}
    for content in (b"one", b"two"):
        (folder / name).write_bytes(content)
        digests.add(model_digest(ModelSource(model=str(folder))))
    assert len(digests) == 3
