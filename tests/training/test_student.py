"""The student: what is dropped, what trains, and a folder that SentenceTransformers reads as it is."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from stella_assets.recipe import Recipe
from stella_assets.students.dense import Student, StudentError, encoder_layers

TEXTS = ["Return a sorted copy of an array.", "Open a network connection."]


def make_student(tiny: Recipe, dim: int = 96, **changes: object) -> Student:
    student = Student.initialise(tiny.student.model_copy(update=changes), dim, seed=1)
    student.dtype = "float32"
    return student


@pytest.fixture
def student(tiny: Recipe) -> Student:
    return make_student(tiny)


def test_the_student_keeps_exactly_the_layers_of_the_recipe(tiny: Recipe, student: Student):
    whole = make_student(tiny, keep_layers=None)
    kept, source = encoder_layers(student.transformer), encoder_layers(whole.transformer)
    assert (len(kept), len(source), student.transformer.config.num_hidden_layers) == (2, 6, 2)
    for new, old in ((0, 0), (1, 3)):
        for a, b in zip(kept[new].parameters(), source[old].parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(("count", "layers"), [(3, (0, 2, 5)), (2, (0, 5)), (1, (0,)), (6, (0, 1, 2, 3, 4, 5))])
def test_a_number_of_layers_is_spread_evenly(tiny: Recipe, count: int, layers: tuple[int, ...]):
    assert tiny.student.model_copy(update={"keep_layers": count}).kept_layers(6) == layers


def test_a_layer_that_is_not_there_is_refused(tiny: Recipe, student: Student):
    with pytest.raises(ValueError, match="layers 0 to 5"):
        make_student(tiny, keep_layers=(0, 6))
    with pytest.raises(ValueError, match=r"keep_layers 7: .* layers 0 to 5"):
        make_student(tiny, keep_layers=7)
    with pytest.raises(StudentError, match="the student has 2 layers"):
        student.train_only(3, [96])


@pytest.mark.parametrize("form", [{}, {"matryoshka_heads": "prefix"}, {"head_hidden": 48}])
def test_sentence_transformers_loads_every_dimension_with_the_same_vectors(form: dict, tiny: Recipe, tmp_path: Path):
    student = make_student(tiny, **form)
    for dim in (96, 64, 32):
        folder = tmp_path / str(dim)
        student.save(folder, dim, {"s2p_query": "Query: "})
        loaded = SentenceTransformer(str(folder), device="cpu")
        np.testing.assert_allclose(loaded.encode(TEXTS), student.encode(TEXTS, dim), atol=1e-5)
        prompted = student.encode(["Query: " + text for text in TEXTS], dim)
        np.testing.assert_allclose(loaded.encode(TEXTS, prompt_name="s2p_query"), prompted, atol=1e-5)
        assert loaded.get_embedding_dimension() == dim
    assert sorted(p.name for p in folder.glob("2_Dense_*")) == ["2_Dense_32", "2_Dense_64", "2_Dense_96"]
    types = [module["type"].rsplit(".")[-1] for module in json.loads((folder / "modules.json").read_text())]
    assert types == ["Transformer", "Pooling", *["Dense"] * (2 if "head_hidden" in form else 1), "Normalize"]


@pytest.mark.parametrize("form", [{}, {"matryoshka_heads": "prefix"}, {"head_hidden": 48}])
def test_a_saved_student_comes_back_to_the_bit(form: dict, tiny: Recipe, tmp_path: Path):
    student = make_student(tiny, **form)
    student.save(tmp_path / "a", 96, {})
    again = Student.load(tmp_path / "a", tiny.student.model_copy(update=form))
    ours, theirs = dict(student.named_parameters()), dict(again.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.dims == student.dims
    assert again.backbone.max_seq_length == student.backbone.max_seq_length


@pytest.mark.parametrize("pooling", ["cls", "mean", "lasttoken"])
def test_every_pooling_survives_saving(pooling: str, tiny: Recipe, tmp_path: Path):
    student = make_student(tiny, 16, pooling=pooling, matryoshka_dims=())
    student.save(tmp_path, 16, {})
    loaded = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(loaded, student.encode(TEXTS, 16), atol=1e-5)


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
        student.head(96).linear.weight.copy_(basis @ basis.T @ student.head(96).linear.weight)
    student.start_matryoshka_heads(targets)
    pooled = torch.randn(10, student.hidden, generator=torch.Generator().manual_seed(2))
    full, *short = (student.project(pooled, dim) for dim in (96, 64, 32))
    for vectors in short:
        torch.testing.assert_close(vectors @ vectors.T, full @ full.T, atol=1e-4, rtol=0)


def test_batched_encoding_equals_one_text_at_a_time(student: Student):
    texts = [*TEXTS, "word " * 40, "short"]
    together = student.encode_pooled(texts, max_batch_tokens=50)
    one_by_one = np.concatenate([student.encode_pooled([text]) for text in texts])
    np.testing.assert_allclose(together, one_by_one, atol=1e-4)


def test_groups_looked_up_at_once_give_the_vectors_and_the_gradient_of_groups_one_by_one(student: Student):
    features = [student.backbone.preprocess([text]) for text in ("a short text", TEXTS[0], "word " * 20)]
    student.train_only("all", [96])
    grads = []
    for together in (True, False):
        student.zero_grad()
        if together:
            vectors = student(features, [96])[96]
        else:
            vectors = torch.cat([student([group], [96])[96] for group in features])
        (vectors[0] @ vectors[1] + vectors[2, 0]).backward()
        grads.append((vectors.detach(), student.transformer.get_input_embeddings().weight.grad.clone()))
    torch.testing.assert_close(grads[0], grads[1], atol=1e-6, rtol=1e-4)
