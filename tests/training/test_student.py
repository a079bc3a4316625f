"""The student: what is dropped, what trains, and a folder that SentenceTransformers reads as it is."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from stella_assets.recipe import Recipe
from stella_assets.training.student import Student, StudentError, encoder_layers

TEXTS = ["Return a sorted copy of an array.", "Open a network connection."]


@pytest.fixture
def student(tiny: Recipe) -> Student:
    student = Student.initialise(tiny.student, [96, 64, 32], seed=1)
    student.dtype = "float32"
    return student


def test_the_student_keeps_exactly_the_layers_of_the_recipe(tiny: Recipe, student: Student):
    whole = Student.initialise(tiny.student.model_copy(update={"keep_layers": None}), [], seed=1)
    kept, source = encoder_layers(student.transformer), encoder_layers(whole.transformer)
    assert (len(kept), len(source), student.transformer.config.num_hidden_layers) == (2, 6, 2)
    for new, old in ((0, 0), (1, 3)):
        for a, b in zip(kept[new].parameters(), source[old].parameters(), strict=True):
            assert torch.equal(a, b)


def test_a_layer_that_is_not_there_is_refused(tiny: Recipe, student: Student):
    with pytest.raises(StudentError, match="layers 0 to 5"):
        Student.initialise(tiny.student.model_copy(update={"keep_layers": (0, 6)}), [], seed=1)
    with pytest.raises(StudentError, match="the student has 2 layers"):
        student.train_only(3, [96])


def test_sentence_transformers_loads_every_dimension_with_the_same_vectors(student: Student, tmp_path: Path):
    for dim in (96, 64, 32):
        folder = tmp_path / str(dim)
        student.save(folder, dim, {"s2p_query": "Query: "})
        loaded = SentenceTransformer(str(folder), device="cpu")
        expected = student.project(student.pool(TEXTS), dim).detach().numpy()
        np.testing.assert_allclose(loaded.encode(TEXTS), expected, atol=1e-5)
        prompted = student.project(student.pool(["Query: " + text for text in TEXTS]), dim).detach().numpy()
        by_name = loaded.encode(TEXTS, prompt_name="s2p_query")
        np.testing.assert_allclose(by_name, prompted, atol=1e-5)
        assert loaded.get_embedding_dimension() == dim
    assert sorted(p.name for p in folder.glob("2_Dense_*")) == ["2_Dense_32", "2_Dense_64", "2_Dense_96"]
    types = [module["type"] for module in json.loads((folder / "modules.json").read_text())]
    assert types == [
        f"sentence_transformers.models.{name}" for name in ("Transformer", "Pooling", "Dense", "Normalize")
    ]


def test_a_saved_student_comes_back_to_the_bit(student: Student, tmp_path: Path):
    student.save(tmp_path / "a", 96, {})
    again = Student.load(tmp_path / "a")
    ours, theirs = dict(student.named_parameters()), dict(again.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.backbone.max_seq_length == student.backbone.max_seq_length


@pytest.mark.parametrize("pooling", ["cls", "mean", "lasttoken"])
def test_every_pooling_survives_saving(pooling: str, tiny: Recipe, tmp_path: Path):
    spec = tiny.student.model_copy(update={"pooling": pooling})
    student = Student.initialise(spec, [16], seed=0)
    student.dtype = "float32"
    student.save(tmp_path, 16, {})
    loaded = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(loaded, student.project(student.pool(TEXTS), 16).detach().numpy(), atol=1e-5)


def test_only_what_a_stage_names_trains(student: Student):
    student.train_only(0, [96])
    assert {n.split(".")[1] for n, p in student.named_parameters() if p.requires_grad} == {"96"}
    student.train_only(1, [96])
    trained = {name for name, p in student.named_parameters() if p.requires_grad and name.startswith("backbone")}
    assert trained
    assert all(".layer.1." in name for name in trained)
    student.train_only("all", [96, 64, 32])
    assert all(p.requires_grad for p in student.parameters())


def test_short_heads_start_with_the_teacher_heads_similarities(student: Student):
    # Targets of rank 24 lie in a space that 64 and 32 dimensions hold whole.
    basis = torch.linalg.qr(torch.randn(96, 24, generator=torch.Generator().manual_seed(0))).Q
    targets = torch.randn(200, 24, generator=torch.Generator().manual_seed(1)) @ basis.T
    with torch.no_grad():
        student.heads["96"].weight.copy_(basis @ basis.T @ student.heads["96"].weight)
    student.start_short_heads(96, targets)
    pooled = torch.randn(10, student.hidden, generator=torch.Generator().manual_seed(2))
    full, *short = (student.project(pooled, dim) for dim in (96, 64, 32))
    for vectors in short:
        torch.testing.assert_close(vectors @ vectors.T, full @ full.T, atol=1e-4, rtol=0)


def test_batched_encoding_equals_one_text_at_a_time(student: Student):
    texts = [*TEXTS, "word " * 40, "short"]
    together = student.encode_pooled(texts, max_batch_tokens=50)
    one_by_one = np.concatenate([student.encode_pooled([text]) for text in texts])
    np.testing.assert_allclose(together, one_by_one, atol=1e-4)
