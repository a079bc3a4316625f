"""Static teachers: tables of model2vec, of StaticEmbedding and bare ones give the vectors of sentence-transformers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Whitespace

from stella_assets.core.devices import Compute
from stella_assets.core.errors import UserError
from stella_assets.storage.canonical import digest
from stella_assets.teachers.kinds import StaticTeacher

CPU = Compute("cpu", threads=1)
WORDS = [
    "sort",
    "an",
    "array",
    "open",
    "a",
    "network",
    "connection",
    "graph",
    "path",
    "short",
    *"0123456789",
    "file",
    "query",
    "most",
    "first",
]
TEXTS = ["sort an array", "open a network connection", "a short path", "graph", "short graph path sort"]
DIM = 6


def tokenizer() -> Tokenizer:
    """Words of a small vocabulary and digits; everything else is left out."""
    made = Tokenizer(BPE({word: i for i, word in enumerate(WORDS)}, [], ignore_merges=True))
    made.pre_tokenizer = Whitespace()
    return made


def table(rows: int = len(WORDS), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, DIM)).astype(np.float32)


def model2vec(folder: Path, **tensors: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"embeddings": table(), **tensors}, folder / "model.safetensors")
    tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": True}))
    return folder


def quantised(folder: Path) -> Path:
    """Several tokens share a row, and each has a factor of its own."""
    mapping = np.arange(len(WORDS)) % 4
    factors = np.linspace(0.5, 2, len(WORDS)).astype(np.float64)
    return model2vec(folder, embeddings=table(4).astype(np.float16), mapping=mapping, weights=factors)


def static_embedding(folder: Path, **settings: Any) -> Path:
    modules = [StaticEmbedding(tokenizer(), embedding_weights=table()), Normalize()]
    SentenceTransformer(modules=modules, device="cpu", **settings).save_pretrained(str(folder))
    return folder


def prompted(folder: Path) -> Path:
    return static_embedding(folder, prompts={"all": "open "}, default_prompt_name="all")


def truncated(folder: Path) -> Path:
    return static_embedding(folder, truncate_dim=4)


def teacher(model: Path, **settings: Any) -> StaticTeacher:
    return StaticTeacher(name="words", kind="static", licence="MIT", model=str(model), **settings)


def opened(config: StaticTeacher) -> Any:
    return config.open(Path(), CPU)


@pytest.mark.parametrize("layout", [model2vec, quantised, static_embedding, prompted, truncated])
def test_vectors_are_those_of_sentence_transformers(layout: Any, tmp_path: Path):
    folder = layout(tmp_path / "model")
    config = teacher(folder)
    vectors = opened(config).encode(TEXTS, "document")
    if (folder / "modules.json").is_file():
        reference = SentenceTransformer(str(folder), device="cpu")
    else:
        reference = SentenceTransformer(modules=[StaticEmbedding.load(str(folder))], device="cpu")
    expected = reference.encode(TEXTS, normalize_embeddings=True)
    assert (vectors * expected).sum(axis=1).min() > 0.9999
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert config.check() == opened(config).dim == expected.shape[1] == (4 if layout is truncated else DIM)


def test_a_bare_table_with_a_tokenizer_is_enough(tmp_path: Path):
    (tmp_path / "weights").mkdir()
    save_file({"word_vectors": table(), "other": table(3)}, tmp_path / "weights" / "words.safetensors")
    tokenizer().save(str(tmp_path / "words.json"))
    named = {"weights": "weights/words.safetensors", "tokenizer": "words.json"}
    vectors = opened(teacher(tmp_path, key="word_vectors", **named)).encode(TEXTS, "query")
    expected = opened(teacher(static_embedding(tmp_path / "other"))).encode(TEXTS, "query")
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    with pytest.raises(UserError, match=r"holds no table 'embeddings'.*Name the table with `key`"):
        teacher(tmp_path, **named).check()


def test_a_text_without_known_tokens_has_the_direction_of_the_mean_row(tmp_path: Path):
    vectors = opened(teacher(model2vec(tmp_path))).encode(["unknown words", "", "graph"], "document")
    mean = table().mean(axis=0)
    np.testing.assert_allclose(vectors[0], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_array_equal(vectors[0], vectors[1])
    save_file(
        {"embeddings": np.repeat([[1.0], [-1.0]], len(WORDS) // 2, axis=0).astype(np.float32)},
        tmp_path / "model.safetensors",
    )
    with pytest.raises(UserError, match="the mean of the table is zero"):
        opened(teacher(tmp_path)).encode(["unknown words"], "document")


def test_whatever_a_vector_depends_on_changes_the_fingerprint(tmp_path: Path):
    def fingerprint(folder: Path, **settings: Any) -> str:
        return opened(teacher(folder, **settings)).fingerprint("document")

    first = model2vec(tmp_path / "first")
    known = fingerprint(first)
    assert fingerprint(model2vec(tmp_path / "elsewhere")) == known
    assert opened(teacher(first)).fingerprint("query") == known
    changed = [
        fingerprint(model2vec(tmp_path / "table", embeddings=table(seed=1))),
        fingerprint(model2vec(tmp_path / "factors", weights=np.linspace(1, 2, len(WORDS)))),
        fingerprint(model2vec(tmp_path / "two", other=table(seed=1)), key="other"),
        fingerprint(prompted(tmp_path / "prompt")),
        fingerprint(static_embedding(tmp_path / "no_prompt")),
    ]
    assert len({known, *changed}) == 6
    lower = model2vec(tmp_path / "tokenizer")
    other = tokenizer()
    other.pre_tokenizer = None
    other.save(str(lower / "tokenizer.json"))
    assert fingerprint(lower) != known
    versions = teacher(first).external_versions(CPU), teacher(lower).external_versions(CPU)
    assert versions[0] != versions[1]


def test_a_model_of_a_hub_is_found_in_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    commit = "0123456789" * 4
    folder = model2vec(tmp_path / "models--org--words" / "snapshots" / commit)
    config = teacher(Path("org/words"), revision=commit)
    assert config.check() is None
    vectors = opened(config).encode(TEXTS, "document")
    np.testing.assert_array_equal(vectors, opened(teacher(folder)).encode(TEXTS, "document"))


def test_what_is_not_a_static_model_is_refused_before_anything_is_computed(tmp_path: Path):
    folder = static_embedding(tmp_path / "dense")
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "sentence_transformers.models.Dense"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match=r"StaticEmbedding, Dense, not a StaticEmbedding alone.*sentence_transformers"):
        teacher(folder).check()
    with pytest.raises(UserError, match=r"nowhere: no such model folder\. Correct `model`"):
        teacher(tmp_path / "nowhere").check()
    broken = model2vec(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"not a table")
    with pytest.raises(UserError, match="is not a safetensors file"):
        teacher(broken).check()
    (broken / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer.json: no such file.*`tokenizer`"):
        teacher(broken).check()
    short = model2vec(tmp_path / "short", embeddings=table(4))
    with pytest.raises(UserError, match=r"has 24 tokens, .* has 4\. Name the tokenizer"):
        opened(teacher(short)).encode(TEXTS, "document")


def test_settings_that_choose_among_the_files_of_a_hub_model_are_part_of_its_fingerprint():
    hub = {"model": "org/potion", "revision": "1"}
    digests = {
        StaticTeacher(name="a", kind="static", licence="MIT", **hub, **chosen).content_digest()
        for chosen in ({}, {"weights": "b.safetensors"}, {"tokenizer": "b.json"}, {"key": "b"}, {"key": "c"})
    }
    assert len(digests) == 5
    assert digest(["org/potion", "1"]) in digests


def test_a_table_takes_no_arguments_of_an_encoder():
    settings = {"name": "a", "kind": "static", "licence": "MIT", "model": "./a", "model_kwargs": {"x": 1}}
    with pytest.raises(ValueError, match="model_kwargs is for models with an encoder"):
        StaticTeacher.model_validate(settings)
