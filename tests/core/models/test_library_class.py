"""A recipe can ask for the libraries' own class where a model brings code, as the presets do for Qwen2 models."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from stella_assets.core.config import ModelSource
from stella_assets.core.models import load_sentence_transformer, load_tokenizer
from stella_assets.core.models.code import CodeError
from tests.models import TEXTS, build

LIBRARY = {"config_kwargs": {"auto_map": {}, "is_causal": False}, "tokenizer_kwargs": {"auto_map": {}}}
Published = Callable[[str], Path]


@pytest.fixture
def qwen2(tmp_path: Path) -> Path:
    """As gte-Qwen2: its files name code for attention in both directions, which needs an older transformers."""
    folder = build("qwen2", tmp_path)
    maps: dict[str, dict[str, Any]] = {
        "config.json": {"AutoModel": "modeling_qwen.Qwen2Model"},
        "tokenizer_config.json": {"AutoTokenizer": ["tokenization_qwen.Qwen2Tokenizer", None]},
    }
    for name, auto_map in maps.items():
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        both = {"is_causal": False} if name == "config.json" else {}
        (folder / name).write_text(json.dumps({**content, **both, "auto_map": auto_map}), encoding="utf-8")
    (folder / "modeling_qwen.py").write_text("raise RuntimeError('this code must not run')\n", encoding="utf-8")
    return folder


def in_both_directions(folder: Path) -> np.ndarray:
    """Mean states of the plain decoder under a mask that lets every token see every other one."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        seen = torch.zeros(1, 1, ids.shape[1], ids.shape[1])
        with torch.inference_mode():
            states = model(ids, attention_mask=seen).last_hidden_state.mean(dim=1)
        rows.append(torch.nn.functional.normalize(states, dim=1)[0].numpy())
    return np.stack(rows)


def test_the_librarys_class_attends_in_both_directions_and_runs_no_code_of_the_model(qwen2: Path, tmp_path: Path):
    (tmp_path / "plain").mkdir()
    plain = build("qwen2", tmp_path / "plain")
    source = ModelSource(model=str(qwen2), **LIBRARY)
    model = load_sentence_transformer(source)
    vectors = model.encode(TEXTS)
    assert (vectors * in_both_directions(plain)).sum(axis=1).min() > 0.9999
    causal = load_sentence_transformer(ModelSource(model=str(plain))).encode(TEXTS)
    assert (vectors * causal).sum(axis=1).min() < 0.99
    assert load_tokenizer(source)(TEXTS)["input_ids"] == AutoTokenizer.from_pretrained(plain)(TEXTS)["input_ids"]
    # What is saved of it needs neither the argument nor the code.
    model.save_pretrained(str(tmp_path / "saved"))
    saved = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(saved.encode(TEXTS), vectors, atol=1e-6)


@pytest.mark.parametrize("left", sorted(LIBRARY))
def test_each_file_that_names_code_needs_its_own_answer(qwen2: Path, left: str):
    kept = {name: value for name, value in LIBRARY.items() if name != left}
    with pytest.raises(CodeError, match=r"auto_map: \{\}"):
        load_sentence_transformer(ModelSource(model=str(qwen2), **kept))


def test_another_map_is_refused(qwen2: Path):
    with pytest.raises(ValidationError, match=r"config_kwargs\.auto_map can only be \{\}"):
        ModelSource(model=str(qwen2), config_kwargs={"auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}})
