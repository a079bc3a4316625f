"""Students of architectures whose layers, padding or number formats differ from BERT's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from stella_assets.core.devices import Compute
from stella_assets.students import FULL, DenseConfig, StudentError
from stella_assets.students.dense.layers import checkpoint_activations
from stella_assets.students.dense.model import DenseStudent
from stella_assets.training.stages.descent import Descent
from tests.models import TEXTS

BATCH = ["sort", *TEXTS[:4], "compare the rows of a table with their neighbours " * 3]


def settings(folder: Path, **changes: Any) -> DenseConfig:
    given = {"model": str(folder), "max_length": 48, "matryoshka_dims": []}
    return DenseConfig.model_validate({**given, **changes})


def make(folder: Path, **changes: Any) -> DenseStudent:
    student = settings(folder, **changes).initialise(16, 0, Compute())
    student.dtype = "float32"
    return student


def require_same(vectors: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(vectors, expected, atol=2e-5)


@pytest.mark.parametrize(
    "name", ["bert", "gpt2", *(pytest.param(n, marks=pytest.mark.slow) for n in ("distilbert", "qwen3"))]
)
@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_padding_before_the_text_shifts_no_position(name: str, pooling: str, published, tmp_path: Path):
    student = make(published(name), pooling=pooling, tokenizer_kwargs={"padding_side": "left"})
    alone = np.concatenate([student.encode([text]) for text in BATCH])
    require_same(student.encode(BATCH), alone)
    student.save(tmp_path, FULL, {})
    require_same(SentenceTransformer(str(tmp_path), device="cpu").encode(BATCH), alone)
    assert AutoTokenizer.from_pretrained(tmp_path).padding_side == "right"


@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
def test_a_text_without_tokens_stops_no_evaluation_and_has_the_vector_of_padding(name: str, published):
    student = make(published(name))
    padding = student.backbone.tokenizer.pad_token
    alone, expected = student.encode([""]), student.encode([padding])
    require_same(alone, expected)
    require_same(student.encode([*BATCH, "", *BATCH])[len(BATCH)], expected[0])
    assert np.linalg.norm(alone) == pytest.approx(1)


def test_a_tokenizer_without_padding_pads_with_the_end_of_text_and_is_saved_so(published, tmp_path: Path):
    make(published("gpt2")).save(tmp_path, FULL, {})
    assert AutoTokenizer.from_pretrained(published("gpt2")).pad_token is None
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token == "<|endoftext|>"  # noqa: S105 (no password)


def test_a_tokenizer_that_cannot_pad_is_refused(published):
    with pytest.raises(StudentError, match="no padding token and no end-of-text token"):
        make(published("gpt2"), tokenizer_kwargs={"eos_token": None})


@pytest.mark.parametrize("name", ["t5_encoder", "modernbert"])
def test_layers_that_the_configuration_cannot_describe_are_refused(name: str, published):
    with pytest.raises(StudentError, match=r"keep_layers \[1, 2\]: layers of .* are not all alike") as refused:
        make(published(name), keep_layers=[1, 2])
    assert refused.value.remedy == "Keep layer 0."


@pytest.mark.parametrize("name", ["t5_encoder", "modernbert", "gemma3", "qwen2", "deberta_v2", "gpt2"])
def test_a_student_that_lost_layers_is_read_as_it_was_in_memory(name: str, published, tmp_path: Path):
    config = settings(published(name), keep_layers=[0, 2])
    student = make(published(name), keep_layers=[0, 2])
    student.save(tmp_path, FULL, {})
    again = config.load(tmp_path, Compute())
    again.dtype = "float32"
    require_same(again.encode(BATCH), student.encode(BATCH))


def test_a_kept_layer_keeps_its_kind_of_attention(published):
    config = make(published("gemma3"), keep_layers=[1, 2]).transformer.config
    assert config.layer_types == ["sliding_attention", "full_attention"]


def test_an_architecture_that_cannot_checkpoint_activations_is_refused(published):
    with pytest.raises(StudentError, match="gradient_checkpointing: MPNetModel"):
        checkpoint_activations(make(published("mpnet")))


@pytest.mark.parametrize("name", ["distilbert", "t5_encoder", "gpt2", "albert", "llama"])
def test_the_layers_of_every_architecture_are_known_without_its_weights(name: str, published):
    def check(layers: int, **changes: Any) -> None:
        stage = {"train_layers": layers, "full_head": {"cosine": 1}, "steps": 1, "learning_rate": 0.1}
        settings(published(name), **changes).check([Descent.model_validate(stage)])

    check(3)
    with pytest.raises(StudentError, match=r"stages\.0\.train_layers 4: the student has 3 layers"):
        check(4)
    with pytest.raises(StudentError, match="has layers 0 to 2"):
        check(1, keep_layers=[0, 3])


@pytest.mark.parametrize(("name", "positions"), [("roberta", 62), ("xlm_roberta", 62), ("mpnet", 64), ("gpt2", 64)])
def test_positions_that_an_architecture_reserves_do_not_count(name: str, positions: int, published):
    settings(published(name), max_length=positions).check([])
    with pytest.raises(StudentError, match=f"max_length {positions + 1} is above the {positions} positions"):
        settings(published(name), max_length=positions + 1).check([])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clip", "modules.json begins with sentence_transformers.models.CLIPModel, not with a Transformer"),
        ("static_embedding", "StaticEmbedding, not with a Transformer"),
        ("model2vec", "StaticEmbedding, not with a Transformer"),
    ],
)
def test_a_model_that_is_no_encoder_is_refused_with_a_message(name: str, message: str, published):
    with pytest.raises(StudentError, match=message):
        settings(published(name)).check([])


def test_a_folder_of_an_old_layout_is_accepted(published):
    settings(published("layout_1"), max_length=64, keep_layers=[0, 2]).check([])


def test_no_layers_at_all_are_refused_when_the_recipe_is_read(published):
    with pytest.raises(ValueError, match="keep_layers is empty"):
        settings(published("bert"), keep_layers=[])
