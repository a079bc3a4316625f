"""Texts as a student's tokenizer reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stella_assets.core.batching import TokenisedTexts, padding_of
from stella_assets.students.base import StudentError


def pad_on_the_right(tokenizer: Any, model: str) -> None:
    """Let a tokenizer pad after the text, with a padding token that it has.

    Where positions are counted from the first column, padding before a text shifts them. Padding after it is right for
    every architecture: decoders do not look ahead, and the mask hides it from encoders and pooling.

    Args:
        tokenizer: Of transformers; changed in place, and saved so.
        model: Name of the model, for the message.

    Raises:
        StudentError: It has neither a padding token nor one that ends texts.
    """
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        # GPT-2 and Llama were trained without padding; the mask hides whatever stands there.
        if tokenizer.eos_token is None:
            raise StudentError(
                f"student.model {model}: its tokenizer has no padding token and no end-of-text token, so texts of "
                "different length cannot share a batch.",
                "Add `pad_token` to student.tokenizer_kwargs, e.g. `{pad_token: <unk>}`.",
            )
        tokenizer.pad_token = tokenizer.eos_token


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
