"""Examples and embeddings hold exactly what they say."""

import numpy as np
import pytest

from stella_assets.core.data import Embedding, Example


def test_an_example_is_a_text_an_image_or_a_pair():
    assert Example(id="1", text="").text == ""
    assert Example(id="2", image=b"png").text is None
    assert Example(id="3", pair=("1", "2")).pair == ("1", "2")
    with pytest.raises(ValueError, match="neither text, image nor pair"):
        Example(id="4")


def test_an_embedding_knows_its_kind():
    assert Embedding.of_vector(np.ones(3)).kind == "vector"
    assert Embedding.of_tokens(np.ones((2, 3))).kind == "token_vectors"
    assert Embedding.of_score(0.0).kind == "score"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "exactly one"),
        ({"vector": np.ones(3), "score": 1.0}, "exactly one"),
        ({"vector": np.ones((2, 3))}, "vector has 2 axes, not 1"),
        ({"token_vectors": np.ones(3)}, "token_vectors has 1 axes, not 2"),
        ({"vector": np.array([1.0, np.nan])}, "not finite"),
        ({"score": float("inf")}, "not finite"),
    ],
)
def test_an_embedding_of_another_shape_or_without_finite_values_is_refused(values: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Embedding(**values)
