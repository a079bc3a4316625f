"""Static models: a table of token vectors and a tokenizer, in the layouts of StaticEmbedding and model2vec."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from tests.models.registry import model
from tests.models.vocabularies import wordpiece

DIM = 24


def _table(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, DIM)).astype(np.float32)


def _tokenizer(folder: Path) -> int:
    """A WordPiece that puts nothing around a text."""
    tokens = wordpiece(folder)
    (folder / "vocab.txt").unlink()
    made = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps({**made, "post_processor": None}), encoding="utf-8")
    return tokens


@model("static_embedding")
def static_embedding(folder: Path) -> None:
    """As sentence-transformers writes a StaticEmbedding."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    tokens = _tokenizer(folder)
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    (folder / "tokenizer.json").unlink()
    module = StaticEmbedding(made, embedding_weights=_table(tokens))
    SentenceTransformer(modules=[module], device="cpu").save_pretrained(str(folder))


@model("model2vec")
def model2vec(folder: Path) -> None:
    """As model2vec writes it, with the `modules.json` that its folders have."""
    tokens = _tokenizer(folder)
    save_file({"embeddings": _table(tokens)}, folder / "model.safetensors")
    settings = {"model_type": "model2vec", "architectures": ["StaticModel"], "hidden_dim": DIM, "normalize": True}
    (folder / "config.json").write_text(json.dumps({**settings, "seq_length": 1000000}), encoding="utf-8")
    kinds = [("", "StaticEmbedding"), ("1_Normalize", "Normalize")]
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")


@model("model2vec_quantised")
def model2vec_quantised(folder: Path) -> None:
    """Of model2vec 0.6 and later: tokens share rows in float16, and each has a weight of its own."""
    model2vec(folder)
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    tensors = {
        "embeddings": _table(40).astype(np.float16),
        "mapping": np.arange(tokens) % 40,
        "weights": np.linspace(0.5, 2, tokens).astype(np.float64),
    }
    save_file(tensors, folder / "model.safetensors")
