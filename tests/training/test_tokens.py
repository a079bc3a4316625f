"""The student's tokens on disk are those that SentenceTransformers makes, prompts and limits included."""

import numpy as np
import torch

from stella_assets.training.tokens import TokenTable
from tests.training.conftest import Lesson


def test_tokens_are_those_of_sentence_transformers(lesson: Lesson):
    backbone = lesson.student().backbone
    rows = lesson.snapshot.take(np.arange(240), ["text", "role"])
    prompted = [
        ("Query: " if role == "query" else "") + text for text, role in zip(rows["text"], rows["role"], strict=True)
    ]
    for places in (np.arange(3), np.array([99, 100, 239, 5])):
        expected = backbone.preprocess([prompted[i] for i in places])
        found = lesson.tokens.texts.batch(places, int(lesson.tokens.lengths[places].max()))
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            assert torch.equal(found[name], expected[name]), name
    assert lesson.tokens.lengths.max() <= lesson.config.max_length


def test_tokens_stay_on_disk(lesson: Lesson):
    assert isinstance(lesson.tokens, TokenTable)
    row = lesson.tokens.texts.columns["input_ids"][0]
    assert not row.flags.owndata
