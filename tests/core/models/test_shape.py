"""Layers, widths and positions of every architecture, by the names that transformers gives them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, AutoModel

from stella_assets.core.config import ModelSource
from stella_assets.core.devices import Compute
from stella_assets.core.models import ConfigError, code_digest, load_sentence_transformer, read_shape, read_width
from stella_assets.core.models.shape import shape_of
from stella_assets.students import DenseConfig, StudentError
from tests.core.models.folders import WEIGHTS, change_json, change_weights
from tests.models import MODELS, TEXTS, TRUSTED, build
from tests.models.second import as_teacher

Published = Callable[[str], Path]
TABLES = {"static_embedding", "model2vec", "model2vec_quantised"}


def source_of(folder: Path, name: str = "") -> ModelSource:
    trust = {"trust_remote_code": True, "code_digest": code_digest(folder)} if name in TRUSTED else {}
    return ModelSource(model=str(folder), **trust)


@pytest.mark.parametrize("name", sorted(set(MODELS) - TABLES))
def test_sizes_are_those_of_the_loaded_model(name: str, published: Published):
    folder = published(name)
    source = source_of(folder, name)
    shape = read_shape(source)
    model = SentenceTransformer(str(folder), device="cpu", trust_remote_code=name in TRUSTED)
    assert read_width(source) == model.get_embedding_dimension()
    assert (shape.hidden, shape.layers) == (32, 3)
    assert shape.vocabulary == len(model.tokenizer)


@pytest.mark.parametrize(
    ("name", "positions"),
    [("bert", 64), ("roberta", 62), ("xlm_roberta", 62), ("mpnet", 64), ("distilbert", 64), ("gpt2", 64),
     ("llama", 128), ("t5_encoder", None)],
)  # fmt: skip
def test_a_student_takes_as_many_tokens_as_its_model_has_positions(
    name: str, positions: int | None, published: Published
):
    folder = published(name)
    assert read_shape(source_of(folder)).positions == positions
    DenseConfig(model=str(folder), max_length=positions or 100_000, keep_layers=3).check([])
    with pytest.raises(StudentError, match="layers 0 to 2"):
        DenseConfig(model=str(folder), max_length=32, keep_layers=4).check([])
    if positions:
        with pytest.raises(StudentError, match=f"max_length {positions + 1} is above the {positions} positions"):
            DenseConfig(model=str(folder), max_length=positions + 1).check([])


@pytest.mark.parametrize("modes", [["mean", "cls"], ["mean", "cls", "max"], "lasttoken"])
def test_several_ways_of_pooling_are_concatenated(modes: list[str] | str, tmp_path: Path):
    folder = build("layout_6", tmp_path)
    pooling = next(folder.glob("1_Pooling"))
    change_json(pooling / "config.json", pooling_mode=modes)
    change_json(folder / "2_Dense" / "config.json", in_features=None, out_features=None)
    (folder / "2_Dense" / "config.json").unlink()
    width = 32 * (len(modes) if isinstance(modes, list) else 1)
    assert read_width(ModelSource(model=str(folder))) == width


def test_values_of_the_configuration_are_replaced_and_reach_the_model(published: Published):
    folder = str(published("bert"))
    source = ModelSource(
        model=folder, config_kwargs={"layer_norm_eps": 0.5}, model_kwargs={"attn_implementation": "eager"}
    )
    config = load_sentence_transformer(source)[0].auto_model.config
    assert (config.layer_norm_eps, config._attn_implementation) == (0.5, "eager")


def test_values_that_the_settings_of_the_transformer_module_replace_are_read_too(tmp_path: Path):
    folder = build("bert", tmp_path)
    change_json(folder / "sentence_bert_config.json", config_args={"max_position_embeddings": 32, "hidden_act": "relu"})
    change_weights(folder / WEIGHTS, lambda found: {k: v[:32] if "position_emb" in k else v for k, v in found.items()})
    assert read_shape(source_of(folder)).positions == 32
    assert load_sentence_transformer(source_of(folder))[0].auto_model.config.hidden_act == "relu"


def test_a_model_that_was_saved_with_its_first_dimensions_alone_has_those(tmp_path: Path):
    folder = build("layout_5", tmp_path)
    change_json(folder / "config_sentence_transformers.json", truncate_dim=16)
    theirs = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, normalize_embeddings=True)
    teacher = as_teacher("layout_5", folder)
    assert teacher.check() == theirs.shape[1] == 16
    np.testing.assert_allclose(
        teacher.open(Path(), Compute("cpu", threads=1)).encode(TEXTS, "document"), theirs, atol=1e-5
    )


def test_a_key_that_the_configuration_or_the_model_does_not_know_is_refused(published: Published):
    folder = str(published("bert"))
    with pytest.raises(ConfigError, match=r"config_kwargs\.layer_norm_epsilon is 0\.5, .* 'bert' has no such key"):
        read_shape(ModelSource(model=folder, config_kwargs={"layer_norm_epsilon": 0.5}))
    with pytest.raises(Exception, match=r"attention.*correct `model_kwargs`"):
        load_sentence_transformer(ModelSource(model=folder, model_kwargs={"attention": "eager"}))


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_table_of_token_vectors_is_no_encoder(name: str, published: Published):
    with pytest.raises(ConfigError, match=r"without an encoder.*kind: static"):
        read_shape(ModelSource(model=str(published(name))))


def test_a_type_that_transformers_does_not_know_is_named(tmp_path: Path):
    folder = build("bert", tmp_path)
    change_json(folder / "config.json", model_type="unheard")
    with pytest.raises(ConfigError, match=rf"{folder}: transformers cannot read config\.json .*unheard"):
        DenseConfig(model=str(folder), max_length=32).check([])


@pytest.mark.parametrize("kind", ["bert", "camembert", "data2vec-text", "esm", "lilt", "luke", "markuplm", "opt"])
def test_a_model_runs_with_as_many_tokens_as_its_shape_says_and_no_more(kind: str):
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = AutoConfig.for_model(kind, **sizes, vocab_size=60, max_position_embeddings=40, pad_token_id=1)
    if kind == "esm":
        config.position_embedding_type, config.mask_token_id = "absolute", 4
    model, positions = AutoModel.from_config(config).eval(), shape_of(config).positions
    assert positions is not None
    model(input_ids=torch.full((1, positions), 7))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, positions + 1), 7))
