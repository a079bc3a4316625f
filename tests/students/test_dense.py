"""The student: what is dropped, what trains, and a folder that SentenceTransformers reads unchanged."""

import copy
import gc
import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from stella_assets.core.devices import Compute
from stella_assets.students import FULL, DenseConfig, SavedStudent, StudentError
from stella_assets.students.dense.digests import head_digest
from stella_assets.students.dense.layers import encoder_layers, train_only
from stella_assets.students.dense.model import DenseStudent
from tests.conftest import TINY
from tests.core.models.folders import change_json, change_weights
from tests.models import build

TEXTS = ["Return a sorted copy of an array.", "Open a network connection."]


def make_config(**changes: object) -> DenseConfig:
    return DenseConfig.model_validate({**TINY["student"], **changes})


def make_student(dim: int = 96, **changes: object) -> DenseStudent:
    student = make_config(**changes).initialise(dim, 1, Compute())
    student.dtype = "float32"
    return student


@pytest.fixture
def student() -> DenseStudent:
    return make_student()


def test_the_student_keeps_exactly_the_layers_of_the_recipe(student: DenseStudent):
    whole = make_student(keep_layers=None)
    kept, source = encoder_layers(student.transformer), encoder_layers(whole.transformer)
    assert (len(kept), len(source), student.transformer.config.num_hidden_layers) == (2, 6, 2)
    for new, old in ((0, 0), (1, 3)):
        for a, b in zip(kept[new].parameters(), source[old].parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(("count", "layers"), [(3, (0, 2, 5)), (2, (0, 5)), (1, (0,)), (6, (0, 1, 2, 3, 4, 5))])
def test_a_number_of_layers_is_spread_evenly(count: int, layers: tuple[int, ...]):
    assert make_config(keep_layers=count).kept_layers(6) == layers


def test_a_checkpoint_in_bfloat16_trains_and_is_saved_in_float32(tmp_path: Path):
    base = build("bert", tmp_path)
    tensors = {name: value.to(torch.bfloat16) for name, value in load_file(base / "model.safetensors").items()}
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    change_json(base / "config.json", dtype="bfloat16")
    config = DenseConfig(model=str(base), max_length=32, matryoshka_dims=(8,))
    student = config.initialise(16, 1, Compute("cpu"))
    train_only(student, "all", [FULL, "8"])
    before = {name: value.clone() for name, value in student.trained_parameters().items()}
    # A step as small as those of a real run: in bfloat16 most weights would be rounded back.
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-5, weight_decay=0.01)
    vectors = student([student.backbone.preprocess(TEXTS)], [FULL, "8"])
    sum(value[:, :3].sum() for value in vectors.values()).backward()
    optimiser.step()
    unread = ("pooler", "position_embeddings", "word_embeddings", "token_type_embeddings")
    for name, value in student.trained_parameters().items():
        if not any(part in name for part in unread):
            # The softmax does not depend on the bias of the keys, whose gradient is rounding error or zero.
            assert name.endswith("key.bias") or (value != before[name]).float().mean() > 0.99, name
    student.save(tmp_path / "saved", FULL, {})
    for path in (tmp_path / "saved").rglob("*.safetensors"):
        assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float32}
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["dtype"] == "float32"


def test_what_was_saved_in_bfloat16_is_read_in_float32(student: DenseStudent, tmp_path: Path):
    student.save(tmp_path, FULL, {})
    change_weights(
        tmp_path / "model.safetensors", lambda t: {name: value.to(torch.bfloat16) for name, value in t.items()}
    )
    change_json(tmp_path / "config.json", dtype="bfloat16")
    again = make_config().load(tmp_path, Compute("cpu"))
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}


def test_a_missing_layer_is_refused(student: DenseStudent):
    with pytest.raises(StudentError, match="layers 0 to 5"):
        make_student(keep_layers=(0, 6))
    with pytest.raises(StudentError, match=r"keep_layers 7: .* layers 0 to 5"):
        make_student(keep_layers=7)
    with pytest.raises(StudentError, match="the student has 2 layers"):
        train_only(student, 3, [FULL])


@pytest.mark.parametrize("form", [{}, {"matryoshka_heads": "prefix"}, {"head_hidden": 48}])
def test_sentence_transformers_loads_every_dimension_with_the_same_vectors(form: dict, tmp_path: Path):
    student = make_student(**form)
    for head, dim in student.dimensions.items():
        folder = tmp_path / str(dim)
        student.save(folder, head, {"s2p_query": "Query: "})
        loaded = SentenceTransformer(str(folder), device="cpu")
        np.testing.assert_allclose(loaded.encode(TEXTS), student.encode(TEXTS, head), atol=1e-5)
        prompted = student.encode(["Query: " + text for text in TEXTS], head)
        np.testing.assert_allclose(loaded.encode(TEXTS, prompt_name="s2p_query"), prompted, atol=1e-5)
        assert loaded.get_embedding_dimension() == dim
    assert sorted(p.name for p in folder.glob("2_Dense_*")) == ["2_Dense_32", "2_Dense_64", "2_Dense_96"]
    types = [module["type"].rsplit(".")[-1] for module in json.loads((folder / "modules.json").read_text())]
    assert types == ["Transformer", "Pooling", *["Dense"] * (2 if "head_hidden" in form else 1), "Normalize"]


@pytest.mark.parametrize("form", [{}, {"matryoshka_heads": "prefix"}, {"head_hidden": 48}])
def test_a_saved_student_is_read_with_the_same_bits(form: dict, tmp_path: Path):
    student = make_student(**form)
    student.save(tmp_path / "a", FULL, {})
    again = SavedStudent(tmp_path / "a", make_config(**form)).load(Compute())
    ours, theirs = dict(student.named_parameters()), dict(again.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.dimensions == student.dimensions
    assert again.backbone.max_seq_length == student.backbone.max_seq_length


@pytest.mark.parametrize("pooling", ["cls", "mean", "lasttoken"])
def test_every_pooling_survives_saving(pooling: str, tmp_path: Path):
    student = make_student(16, pooling=pooling, matryoshka_dims=())
    student.save(tmp_path, FULL, {})
    loaded = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(loaded, student.encode(TEXTS), atol=1e-5)


def test_only_what_a_stage_names_trains(student: DenseStudent):
    train_only(student, 0, [FULL])
    assert {n.split(".")[1] for n, p in student.named_parameters() if p.requires_grad} == {FULL}
    train_only(student, 1, [FULL])
    trained = {name for name, p in student.named_parameters() if p.requires_grad and name.startswith("backbone")}
    assert trained
    assert all(".layer.1." in name for name in trained)
    train_only(student, "all", [FULL, "64", "32"])
    assert all(p.requires_grad for p in student.parameters())


def test_matryoshka_heads_start_with_the_full_heads_similarities(student: DenseStudent):
    # Targets of rank 24 lie in a space that 64 and 32 dimensions contain completely.
    basis = torch.linalg.qr(torch.randn(96, 24, generator=torch.Generator().manual_seed(0))).Q
    targets = torch.randn(200, 24, generator=torch.Generator().manual_seed(1)) @ basis.T
    with torch.no_grad():
        student.head(FULL).linear.weight.copy_(basis @ basis.T @ student.head(FULL).linear.weight)
    student.start_matryoshka_heads(targets)
    pooled = torch.randn(10, student.hidden, generator=torch.Generator().manual_seed(2))
    full, *others = (student.project(pooled, head) for head in student.dimensions)
    for vectors in others:
        torch.testing.assert_close(vectors @ vectors.T, full @ full.T, atol=1e-4, rtol=0)


def test_batched_encoding_equals_one_text_at_a_time(student: DenseStudent):
    texts = [*TEXTS, "word " * 40, "short"]
    together = student.encode_pooled(texts, max_batch_tokens=50)
    one_by_one = np.concatenate([student.encode_pooled([text]) for text in texts])
    np.testing.assert_allclose(together, one_by_one, atol=1e-4)


def test_groups_looked_up_at_once_give_the_vectors_and_the_gradient_of_groups_one_by_one(student: DenseStudent):
    features = [student.backbone.preprocess([text]) for text in ("a short text", TEXTS[0], "word " * 20)]
    train_only(student, "all", [FULL])
    grads = []
    for together in (True, False):
        student.zero_grad()
        if together:
            vectors = student(features, [FULL])[FULL]
        else:
            vectors = torch.cat([student([group], [FULL])[FULL] for group in features])
        (vectors[0] @ vectors[1] + vectors[2, 0]).backward()
        grads.append((vectors.detach(), student.transformer.get_input_embeddings().weight.grad.clone()))
    torch.testing.assert_close(grads[0], grads[1], atol=1e-6, rtol=1e-4)


def test_a_student_is_freed_without_the_garbage_collector_and_can_be_copied():
    student = make_student()
    copied = copy.deepcopy(student)
    np.testing.assert_array_equal(copied.encode(TEXTS), student.encode(TEXTS))
    gone = weakref.ref(student.transformer)
    gc.collect()
    gc.disable()
    try:
        del student
        assert gone() is None
    finally:
        gc.enable()


def test_a_head_above_the_full_one_is_saved_and_read_as_what_it_is(tmp_path: Path):
    student = make_student(48, matryoshka_dims=(96, 32))
    assert student.dimensions == {FULL: 48, "96": 96, "32": 32}
    student.save(tmp_path, "96", {})
    again = SavedStudent(tmp_path, make_config(matryoshka_dims=(96, 32))).load(Compute())
    assert again.dimensions == student.dimensions
    again.dtype = "float32"
    for head in student.dimensions:
        np.testing.assert_array_equal(again.encode(TEXTS, head), student.encode(TEXTS, head))
    loaded = SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(loaded.encode(TEXTS), student.encode(TEXTS, "96"), atol=1e-5)


def test_in_a_folder_without_a_record_the_largest_head_is_the_full_one(student: DenseStudent, tmp_path: Path):
    student.save(tmp_path, FULL, {})
    (tmp_path / "heads.json").unlink()
    again = SavedStudent(tmp_path, make_config()).load(Compute())
    assert again.dimensions == {FULL: 96, "64": 64, "32": 32}


def test_only_the_rows_that_were_taught_give_vectors(tmp_path: Path):
    student = make_student()
    rows = torch.tensor([0, 1, 2, 90, 95])
    pooled = torch.from_numpy(student.encode_pooled(TEXTS))
    with torch.no_grad():
        expected = torch.nn.functional.normalize(student.head(FULL)(pooled)[:, rows], dim=1).numpy()
    student.taught = rows
    assert student.dimensions == {FULL: 5, "64": 64, "32": 32}
    np.testing.assert_array_equal(student.encode(TEXTS), expected)
    student.save(tmp_path, FULL, {})
    again = SavedStudent(tmp_path, make_config()).load(Compute())
    again.dtype = "float32"
    assert again.taught.tolist() == rows.tolist()
    assert again.rows == {FULL: 96, "64": 64, "32": 32}
    np.testing.assert_array_equal(again.encode(TEXTS), expected)
    assert head_digest(again, FULL) == head_digest(student, FULL)
    with torch.no_grad():
        student.head(FULL).linear.weight[50] += 1  # of a teacher that has not taught yet
    assert head_digest(again, FULL) == head_digest(student, FULL)


def test_heads_start_from_the_rows_of_the_teachers_that_teach(student: DenseStudent):
    rows = torch.arange(20, 40)
    targets = torch.randn(200, 20, generator=torch.Generator().manual_seed(1))
    student.start_matryoshka_heads(targets, rows)
    pooled = torch.randn(10, student.hidden, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        full = student.project(pooled, FULL, rows)
        # 20 principal directions are a rotation of the 20 rows; the other rows of the head are much smaller.
        head = torch.nn.functional.normalize(student.head("64")(pooled)[:, :20], dim=1)
    torch.testing.assert_close(head @ head.T, full @ full.T, atol=1e-5, rtol=0)


def test_a_head_above_the_full_one_starts_close_to_its_similarities():
    student = make_student(48, matryoshka_dims=(64,))
    # Importance falls by a factor of 50, as it does for real teachers.
    scale = torch.logspace(0, -1.7, 48)
    with torch.no_grad():
        student.head(FULL).linear.weight.mul_(scale[:, None])
    targets = torch.randn(500, 48, generator=torch.Generator().manual_seed(1)) * scale
    student.start_matryoshka_heads(targets)
    pooled = torch.randn(10, student.hidden, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        full, head = student.project(pooled, FULL), student.project(pooled, "64")
    torch.testing.assert_close(head @ head.T, full @ full.T, atol=0.005, rtol=0)
    assert student.head("64").linear.weight.norm(dim=1).min() > 0  # else similarities would never teach it


def test_prefix_heads_above_the_full_one_are_refused():
    with pytest.raises(StudentError, match="matryoshka_dims 96: with matryoshka_heads `prefix`"):
        make_student(48, matryoshka_dims=(96, 32), matryoshka_heads="prefix")
