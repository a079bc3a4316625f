"""Digests of a student: they name what its pooled states and its vectors depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from stella_assets.storage.canonical import digest
from stella_assets.students.dense.model import DenseStudent

INCIDENTAL = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures", "_attn_implementation"}
"""Keys of a configuration that no vector depends on."""
PROBE = "Two words,  CamelCase: naïve café, 3.14 + x_1 -> 東京!"
"""A text whose tokens tell tokenizers of one vocabulary apart."""


def encoder_digest(student: DenseStudent) -> str:
    """Names all that a pooled state depends on: weights, tokenizer, pooling, length and number format.

    Args:
        student: Its heads do not count, so stages that share an encoder share their pooled states.

    Returns:
        16 hexadecimal digits.
    """
    tokenizer = student.backbone.tokenizer
    described = {
        "architecture": type(student.transformer).__name__,
        "config": {k: v for k, v in student.transformer.config.to_dict().items() if k not in INCIDENTAL},
        "vocabulary": tokenizer.get_vocab(),
        # Equal vocabularies may still differ in case, accents and merges; the files have no canonical form to hash.
        "probe": tokenizer(PROBE)["input_ids"],
        "pooling": student.pooling,
        "max_length": student.backbone.max_seq_length,
        "dtype": student.dtype,
        "weights": tensor_digest(student.backbone.state_dict()),
    }
    return digest(described)[:16]


def head_digest(student: DenseStudent, head: str) -> str:
    """Names the weights that give the vectors of a head.

    Args:
        student: With the head.
        head: Its name.

    Returns:
        32 hexadecimal digits.
    """
    # Only the rows that give the vectors: a prefix head must not change when later rows of the full head do.
    return tensor_digest(student.weights(head).state_dict())


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """A digest of tensors: names, shapes, types and bytes.

    Args:
        tensors: By name, on any device; their order does not count.

    Returns:
        32 hexadecimal digits.
    """
    content = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        # Shape and type before the bytes: equal bytes in another shape or type are another tensor.
        content.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        # Seen as bytes, as numpy has no bfloat16; flat first, as a scalar cannot be viewed as another type.
        content.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()[:32]
