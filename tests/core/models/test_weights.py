"""A checkpoint that does not fit, or is damaged, gives an error that names file and tensor, and no vector."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stella_assets.core.config import ModelSource
from stella_assets.core.errors import UserError
from stella_assets.core.models import check_files, load_sentence_transformer
from tests.core.models.folders import WEIGHTS, change_json, change_weights, truncate
from tests.models import TEXTS, build


def load(folder: Path) -> Any:
    return load_sentence_transformer(ModelSource(model=str(folder)))


def renamed(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("attention.self.query", "attention.self.question"): value for name, value in tensors.items()}


def without_a_layer(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tensors.items() if "layer.2." not in name}


def narrow(tensors: dict[str, Any]) -> dict[str, Any]:
    name = "encoder.layer.1.intermediate.dense.weight"
    return {**tensors, name: tensors[name][:-2]}


def with_nan(tensors: dict[str, Any]) -> dict[str, Any]:
    tensors["encoder.layer.0.output.dense.bias"][3] = float("nan")
    return tensors


def with_infinity(tensors: dict[str, Any]) -> dict[str, Any]:
    tensors["embeddings.word_embeddings.weight"][5, 1] = -float("inf")
    return tensors


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (renamed, r"lacks 6 weights \(encoder.layer.0.attention.self.query.bias.*has unknown 6 weights"),
        (without_a_layer, r"lacks 16 weights \(encoder.layer.2.attention"),
        (
            narrow,
            r"other shapes of 1 weights \(encoder.layer.1.intermediate.dense.weight \[62, 32\] instead",
        ),
        (with_nan, r"encoder.layer.0.output.dense.bias has NaN or infinity"),
        (with_infinity, r"embeddings.word_embeddings.weight has NaN or infinity"),
    ],
)
def test_weights_that_are_not_the_models_are_refused(change: Any, said: str, tmp_path: Path):
    folder = build("bert", tmp_path)
    change_weights(folder / WEIGHTS, change)
    with pytest.raises(UserError, match=f"{folder / WEIGHTS}.*{said}"):
        load(folder)


def test_more_layers_than_the_configuration_says_are_refused(tmp_path: Path):
    folder = build("bert", tmp_path)
    change_json(folder / "config.json", num_hidden_layers=2)
    with pytest.raises(UserError, match=r"has unknown 16 weights \(encoder\.layer\.2\."):
        load(folder)


@pytest.mark.parametrize("name", ["layout_5", "layout_1_dense"])
def test_a_dense_layer_without_its_weights_is_refused(name: str, tmp_path: Path):
    folder = build(name, tmp_path)
    if (path := folder / "2_Dense" / WEIGHTS).is_file():
        change_weights(path, lambda tensors: {"linear.weight": tensors["linear.weight"]})
    else:
        torch.save({"linear.weight": torch.zeros(24, 32)}, folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"Dense.*linear\.bias"):
        load(folder)


def test_a_damaged_file_is_named_before_anything_is_loaded(tmp_path: Path):
    for name, file in (("bert", WEIGHTS), ("layout_5", f"2_Dense/{WEIGHTS}"), ("layout_2", "pytorch_model.bin")):
        folder = build(name, tmp_path)
        truncate(folder / file)
        for refuse in (check_files, load):
            with pytest.raises(UserError, match=f"{folder / file}: is damaged or cut off"):
                refuse(folder)


def test_a_missing_shard_is_named(tmp_path: Path):
    folder = build("bert", tmp_path)
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(UserError, match=r"model-00002-of-00002\.safetensors: does not exist"):
        load(folder)


def test_heads_of_the_pretraining_and_old_buffers_are_no_fault(tmp_path: Path):
    folder = build("bert", tmp_path)
    expected = load(folder).encode(TEXTS)
    more = {"cls.predictions.bias": torch.zeros(9), "embeddings.position_ids": torch.arange(64)[None]}
    change_weights(folder / WEIGHTS, lambda tensors: {**tensors, **more})
    np.testing.assert_array_equal(load(folder).encode(TEXTS), expected)


def test_a_pooler_that_no_vector_depends_on_may_be_missing_and_is_the_same_in_each_process(tmp_path: Path):
    folder = build("bert", tmp_path)
    expected = load(folder).encode(TEXTS)
    change_weights(folder / WEIGHTS, lambda tensors: {k: v for k, v in tensors.items() if "pooler" not in k})
    model = load(folder)
    np.testing.assert_array_equal(model.encode(TEXTS), expected)
    pooler = model[0].auto_model.pooler.dense
    assert torch.equal(pooler.weight, torch.eye(32))
    assert not pooler.bias.any()
    # What is saved of it is whole in the eyes of the next one who loads it.
    model.save_pretrained(str(tmp_path / "saved"))
    np.testing.assert_array_equal(load(tmp_path / "saved").encode(TEXTS), expected)


@pytest.mark.parametrize("missing", [["config.json"], ["model.safetensors"], ["1_Pooling/config.json"]])
def test_a_missing_file_is_an_error_that_names_the_model(missing: list[str], tmp_path: Path):
    folder = build("bert", tmp_path)
    for name in missing:
        (folder / name).unlink()
    with pytest.raises(UserError, match=str(folder)):
        load(folder)
