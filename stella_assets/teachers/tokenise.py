"""Tokenising for a SentenceTransformers model, unpadded, so that batches can be cut by a budget of tokens.

Shapes: N texts, W tokens of a padded row.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from stella_assets.core.batching import TokenisedTexts, padding_of
from stella_assets.core.errors import UserError

TEXTS_AT_ONCE = 2048
"""Tokenised in parts: Python lists of tokens take some ten times the memory of arrays."""
# Padding is added per batch, once texts are sorted by length. `return_tensors` None: unequal rows make no tensor.
UNPADDED = {"text": {"padding": False, "return_attention_mask": False}, "common": {"return_tensors": None}}


def tokenise(model: Any, texts: list[str], prompt: str) -> TokenisedTexts:
    """Tokenise texts with a model's own preprocessing, truncated to its maximum length.

    Args:
        model: A `SentenceTransformer`.
        texts: One per row of the result.
        prompt: Put before each text.

    Returns:
        Rows of int32, special tokens included, and what pads them.

    Raises:
        UserError: The model does not give one row of tokens per text.
    """
    columns: dict[str, list[np.ndarray]] = defaultdict(list, input_ids=[])
    shared: dict[str, Any] = {}
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = texts[start : start + TEXTS_AT_ONCE]
        features = model.preprocess(part, prompt=prompt or None, processing_kwargs=UNPADDED)
        # Only tensors need it, to find the padding; batches get a mask of their own.
        mask = features.pop("attention_mask", None)
        for name, value in features.items():
            # What has no row per text, e.g. the length of the prompt, holds for all texts.
            if isinstance(value, list) or np.ndim(value) == 2:
                columns[name] += _unpadded(value, mask)
            else:
                shared[name] = value
    # StaticEmbedding, for one, gives the tokens of all texts in one flat row, and offsets.
    if len(columns["input_ids"]) != len(texts):
        raise UserError(
            f"{type(model[0]).__name__}: this module does not make one row of tokens per text.",
            "Use a teacher kind that is made for it, e.g. `static`.",
        )
    tokenizer = model.tokenizer
    return TokenisedTexts(columns, padding_of(tokenizer), shared, left=tokenizer.padding_side == "left")


def _unpadded(rows: Any, mask: Any) -> list[np.ndarray]:
    """Rows `[tokens]` int32. Older models' own tokenising pads nevertheless, and gives tensors `[N, W]`."""
    if isinstance(rows, list):
        return [np.asarray(row, dtype=np.int32) for row in rows]
    return [row[kept].numpy().astype(np.int32) for row, kept in zip(rows, mask.bool(), strict=True)]
