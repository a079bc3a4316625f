"""A checkpoint that does not fit, or is damaged, gives an error that names file and tensor, and no vector."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import OPTConfig, OPTModel

from stella_assets.core.config import ModelSource
from stella_assets.core.errors import UserError
from stella_assets.core.models import check_files, code_digest, load_sentence_transformer
from tests.core.models.folders import WEIGHTS, change_json, change_weights, truncate
from tests.models import TEXTS, build


def load(folder: Path) -> Any:
    return load_sentence_transformer(ModelSource(model=str(folder)))


def load_trusted(folder: Path) -> Any:
    source = ModelSource(model=str(folder), trust_remote_code=True, code_digest=code_digest(folder))
    return load_sentence_transformer(source)


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


def test_layers_of_a_decoder_are_no_pretraining_head(tmp_path: Path):
    folder = build("gpt2", tmp_path)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 64}
    config = OPTConfig(vocab_size=400, max_position_embeddings=64, word_embed_proj_dim=32, pad_token_id=0, **sizes)
    OPTModel(config).save_pretrained(str(folder))
    change_json(folder / "tokenizer_config.json", pad_token="<|endoftext|>")
    load(folder)
    change_json(folder / "config.json", num_hidden_layers=2)
    with pytest.raises(UserError, match=r"OPTModel: it has unknown 16 weights \(decoder\.layers\.2\."):
        load(folder)


def renamed_in_code(folder: Path, name: str, other: str) -> None:
    """Rename a part of the model with code of its own, in code and weights."""
    path = folder / "modeling_new.py"
    path.write_text(path.read_text(encoding="utf-8").replace(f"self.{name}", f"self.{other}"), encoding="utf-8")
    change_weights(folder / WEIGHTS, lambda found: {k.replace(f"{name}.", f"{other}."): found[k] for k in found})


@pytest.mark.parametrize(
    ("name", "lost", "said"),
    [
        # Each has the name of a harmless part: the mask of GPT-2, a layer that pooling does not read, a head.
        ("attn", r"attn.bias", r"lacks 3 weights \(encoder\.layer\.0\.attn\.bias"),
        ("pooler", r"pooler.", r"lacks 6 weights \(encoder\.layer\.0\.pooler\.bias"),
    ],
)
def test_a_weight_that_vectors_depend_on_is_not_harmless_by_its_name(name: str, lost: str, said: str, tmp_path: Path):
    folder = build("custom_code", tmp_path)
    renamed_in_code(folder, "o_proj", name)
    load_trusted(folder)
    change_weights(folder / WEIGHTS, lambda tensors: {k: v for k, v in tensors.items() if lost not in k})
    with pytest.raises(UserError, match=rf"NewModel: it {said}"):
        load_trusted(folder)


def test_a_bias_that_the_code_leaves_out_is_not_harmless_by_its_name(tmp_path: Path):
    folder = build("custom_code", tmp_path)
    renamed_in_code(folder, "o_proj", "attn")
    path = folder / "modeling_new.py"
    code = path.read_text(encoding="utf-8")
    path.write_text(code.replace("self.attn = nn.Linear(width, width)", "self.attn = nn.Linear(width, width, False)"))
    with pytest.raises(UserError, match=r"has unknown 3 weights \(encoder\.layer\.0\.attn\.bias"):
        load_trusted(folder)


IGNORED = """    _keys_to_ignore_on_load_missing = ["attn_ln", "cached"]
    config_class = NewConfig
"""


def test_code_cannot_ask_to_be_silent_about_weights_that_are_missing(tmp_path: Path):
    folder = build("custom_code", tmp_path)
    expected = load_trusted(folder).encode(TEXTS)
    path = folder / "modeling_new.py"
    code = path.read_text(encoding="utf-8").replace("    config_class = NewConfig\n", IGNORED)
    # Buffers that are saved, and that the checkpoint of an older version of the code lacks.
    path.write_text(code.replace("both.cos(), persistent=False", "both.cos()"), encoding="utf-8")
    np.testing.assert_allclose(load_trusted(folder).encode(TEXTS), expected, atol=1e-6)
    change_weights(folder / WEIGHTS, lambda tensors: {k: v for k, v in tensors.items() if "attn_ln" not in k})
    with pytest.raises(UserError, match=r"NewModel: it lacks 6 weights \(encoder\.layer\.0\.attn_ln\.bias"):
        load_trusted(folder)


def test_nan_in_a_buffer_is_refused(tmp_path: Path):
    folder = build("custom_code", tmp_path)
    path = folder / "modeling_new.py"
    path.write_text(path.read_text(encoding="utf-8").replace("both.cos(), persistent=False", "both.cos()"))
    table = torch.ones(64, 8)
    table[60] = torch.nan  # of a position that only long texts have
    change_weights(folder / WEIGHTS, lambda tensors: {**tensors, "rotary_emb.cos_cached": table})
    with pytest.raises(UserError, match=r"rotary_emb\.cos_cached has NaN"):
        load_trusted(folder)


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


@pytest.mark.parametrize("name", ["model.pt", "model.pth"])
def test_a_damaged_file_that_only_code_of_the_model_reads_is_named_too(name: str, tmp_path: Path):
    folder = build("bert", tmp_path)
    torch.save({"weight": torch.ones(200)}, folder / name)
    check_files(folder)
    truncate(folder / name)
    with pytest.raises(UserError, match=f"{name}: is damaged or cut off"):
        check_files(folder)


def test_a_missing_shard_is_named(tmp_path: Path):
    folder = build("bert", tmp_path)
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    with pytest.raises(UserError, match=r"model-00002-of-00002\.safetensors: does not exist"):
        load(folder)


@pytest.mark.parametrize("content", [{"weight_map": ["a"], "metadata": {}}, {"weight_map": {"a": WEIGHTS}}])
def test_an_index_of_another_form_is_named(content: dict[str, Any], tmp_path: Path):
    folder = build("bert", tmp_path)
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"{WEIGHTS}\.index\.json: is not an index of weights"):
        load(folder)


@pytest.mark.parametrize("whole", [torch.int8, torch.uint8, torch.int32, torch.bool])
def test_weights_that_are_whole_numbers_are_refused(whole: torch.dtype, tmp_path: Path):
    folder = build("bert", tmp_path)
    name = "encoder.layer.1.output.dense.weight"
    positions = {"embeddings.position_ids": torch.arange(64)[None]}
    change_weights(folder / WEIGHTS, lambda tensors: {**tensors, **positions})
    load(folder)
    change_weights(folder / WEIGHTS, lambda tensors: {**tensors, name: (20 * tensors[name]).to(whole)})
    with pytest.raises(UserError, match=rf"{name} holds whole numbers \(\w+\): it is quantised"):
        load(folder)


def test_an_adapter_of_a_model_that_nothing_pins_is_refused(tmp_path: Path):
    folder = build("bert", tmp_path)
    (folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "org/base", "peft_type": "LORA"})
    )
    with pytest.raises(UserError, match=r"adapter_config\.json: the model has an adapter \(LoRA\).*Merge the two"):
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


READS_THE_POOLER = """
from sentence_transformers.sentence_transformer.modules import Transformer


class First(Transformer):
    def forward(self, features, **kwargs):
        names = ("input_ids", "attention_mask")
        pooled = self.model(**{name: features[name] for name in names}).pooler_output
        return {**features, "token_embeddings": pooled[:, None].expand(-1, features["input_ids"].shape[1], -1)}
"""


def test_a_pooler_that_code_of_a_module_reads_may_not_be_missing(tmp_path: Path):
    folder = build("bert", tmp_path)
    (folder / "first.py").write_text(READS_THE_POOLER)
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([{**modules[0], "type": "first.First"}, *modules[1:]]))
    load_trusted(folder)
    change_weights(folder / WEIGHTS, lambda tensors: {k: v for k, v in tensors.items() if "pooler" not in k})
    with pytest.raises(UserError, match=r"BertModel: it lacks 2 weights \(pooler\.dense\.bias, pooler\.dense\.weight"):
        load_trusted(folder)


@pytest.mark.parametrize("missing", [["config.json"], ["model.safetensors"], ["1_Pooling/config.json"]])
def test_a_missing_file_is_an_error_that_names_the_model(missing: list[str], tmp_path: Path):
    folder = build("bert", tmp_path)
    for name in missing:
        (folder / name).unlink()
    with pytest.raises(UserError, match=str(folder)):
        load(folder)
