"""Variants of the release: vectors of fewer bits, and other wordings of prompts."""

import numpy as np
import pytest

from stella_assets.core.devices import Compute
from stella_assets.evaluation.encoders import PooledStates, StudentEmbedder
from stella_assets.evaluation.quantized import QuantizedEmbedder
from stella_assets.evaluation.settings import EvaluationSettings
from stella_assets.evaluation.variants import paraphrase, variants_step
from stella_assets.students import FULL
from tests.evaluation.conftest import empty_step

TEXTS = [f"A text about subject number {i}, and more of it." for i in range(40)]


@pytest.fixture
def embedder(dense, workspace) -> StudentEmbedder:
    return StudentEmbedder(PooledStates(dense.initialise(48, 0, Compute()), workspace), FULL, {})


def test_int8_vectors_are_near_those_of_float32_with_256_values_per_dimension(embedder):
    quantizations = QuantizedEmbedder(embedder, "int8", TEXTS)
    plain, coarse = embedder.embed(TEXTS, None), quantizations.embed(TEXTS, None)
    steps = (plain.max(axis=0) - plain.min(axis=0)) / 255
    assert (np.abs(plain - coarse).max(axis=0) < 1.01 * steps).all()
    assert not np.array_equal(plain, coarse)


def test_binary_vectors_are_signs(embedder):
    quantizations = QuantizedEmbedder(embedder, "binary", TEXTS)
    np.testing.assert_array_equal(quantizations.embed(TEXTS, None), np.where(embedder.embed(TEXTS, None) > 0, 1, -1))


def test_a_quantised_model_has_an_identity_of_its_own(embedder):
    loaders = [
        embedder.identity(),
        *(QuantizedEmbedder(embedder, kind, TEXTS).identity() for kind in ("int8", "binary")),
    ]
    assert len(set(loaders)) == 3


def test_the_published_prompts_have_paraphrases_and_each_differs():
    instruction = "Given a web search query, retrieve relevant passages that answer the query."
    prompts = {"query": f"Instruct: {instruction}\nQuery: "}
    found = paraphrase(prompts)
    assert len(found) == len({changed["query"] for changed in found.values()}) == 6
    assert prompts["query"] not in {changed["query"] for changed in found.values()}


def test_any_instruction_can_be_worded_differently_and_other_prompts_are_kept():
    assert set(paraphrase({"STS": "Instruct: {instruction}\nQuery: "})) == {"other_frame", "one_line"}
    assert paraphrase({"STS": "same: "}) == {}


def test_a_recipe_that_asks_for_no_variants_has_no_step_for_them(dense):
    def step_of(**evaluation):
        return variants_step(
            "tiny",
            evaluation=EvaluationSettings.model_validate(evaluation),
            prompts={},
            all_heads=True,
            dimension=64,
            stage=empty_step("stage_1"),
            tasks=empty_step("evaluation_tasks"),
        )

    assert step_of() is None
    step = step_of(quantizations=["binary"])
    assert step is not None
    assert step.settings["quantizations"] == ["binary"]


def test_the_calibration_texts_of_int8_are_part_of_its_identity(embedder):
    """Scores of int8 vectors were found again although their ranges came from another corpus."""
    int8 = [QuantizedEmbedder(embedder, "int8", texts).identity() for texts in (TEXTS, TEXTS[:20])]
    binary = [QuantizedEmbedder(embedder, "binary", texts).identity() for texts in (TEXTS, TEXTS[:20])]
    assert int8[0] != int8[1]
    assert binary[0] == binary[1]
