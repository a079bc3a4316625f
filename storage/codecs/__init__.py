"""Codecs: how the values of a column are kept in Arrow, and which values may enter it. One file per column kind.

A codec is small and picklable, so that a worker in another process can write with it.
"""

from stella_assets.storage.codecs.base import Codec, Floats, V, describe_type
from stella_assets.storage.codecs.binary import Binary
from stella_assets.storage.codecs.fixed_vectors import FixedVectors
from stella_assets.storage.codecs.ragged_vectors import RaggedVectors
from stella_assets.storage.codecs.scalars import Scalars
from stella_assets.storage.codecs.vectors import (
    NORM_TOLERANCE,
    UNIT_NORM,
    block_rows,
    vectors_to_arrow,
    vectors_to_numpy,
)

__all__ = [
    "NORM_TOLERANCE",
    "UNIT_NORM",
    "Binary",
    "Codec",
    "FixedVectors",
    "Floats",
    "RaggedVectors",
    "Scalars",
    "V",
    "block_rows",
    "describe_type",
    "vectors_to_arrow",
    "vectors_to_numpy",
]
