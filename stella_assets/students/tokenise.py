"""Texts as a student's tokenizer reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stella_assets.core.batching import TokenisedTexts, padding_of


def tokenise(tokenizer: Any, texts: Sequence[str], max_length: int) -> TokenisedTexts:
    """Tokenise texts, truncated to `max_length` tokens and not padded.

    Args:
        tokenizer: Of transformers.
        texts: With their prompts.
        max_length: In tokens, special tokens included.

    Returns:
        One row of int32 ids per text, and what its columns are padded with.
    """
    # Not padded and without masks: the batch that a text will be in, and so its width, is not known yet.
    encoded = tokenizer(
        list(texts), truncation=True, max_length=max_length, padding=False, return_attention_mask=False, verbose=False
    )
    # Vocabularies fit into int32, which halves the memory-mapped file; a batch becomes int64 when it is padded.
    columns = {name: [np.asarray(row, dtype=np.int32) for row in rows] for name, rows in encoded.items()}
    return TokenisedTexts(columns, padding_of(tokenizer), {}, left=tokenizer.padding_side == "left")
