"""Codecs: values are read as they were written, and bad values are refused."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from stella_assets.storage.codecs import Binary, FixedVectors, RaggedVectors, Scalars, describe_type
from stella_assets.storage.errors import VectorError

DIM = 3
HALVES = st.floats(-100, 100, width=16)


def blocks(rows: st.SearchStrategy[int]) -> st.SearchStrategy[np.ndarray]:
    return rows.flatmap(lambda n: stn.arrays(np.float16, (n, DIM), elements=HALVES))


VALUES = {
    "fixed": (FixedVectors(DIM, unit_norm=False), blocks(st.integers(0, 8))),
    "ragged": (RaggedVectors(DIM, unit_norm=False), st.lists(blocks(st.integers(1, 4)), max_size=6)),
    "scalars": (Scalars(), stn.arrays(np.float32, st.integers(0, 8), elements=st.floats(-1e6, 1e6, width=32))),
    "binary": (Binary(), st.lists(st.binary(max_size=20), max_size=8)),
}


def require_equal(found, expected) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        if isinstance(other, bytes):
            assert one == other
        else:
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", VALUES)
@given(data=st.data())
def test_values_are_read_as_they_were_written(kind: str, data: st.DataObject):
    codec, strategy = VALUES[kind]
    values = data.draw(strategy)
    codec.check(values, len(values), "test")
    column = codec.to_arrow(values)
    assert column.type == codec.arrow_type
    require_equal(codec.from_arrow(column), values)
    cut = data.draw(st.integers(0, len(values)))
    require_equal(codec.from_arrow(pa.chunked_array([column[:cut], column[cut:]], codec.arrow_type)), values)
    require_equal(codec.from_arrow(column[cut:]), values[cut:])


@pytest.mark.parametrize("kind", VALUES)
def test_zero_rows_can_be_read_and_a_codec_can_be_pickled(kind: str):
    codec = VALUES[kind][0]
    assert len(codec.from_arrow(pa.array([], codec.arrow_type))) == 0
    assert len(codec.from_arrow(pa.chunked_array([], codec.arrow_type))) == 0
    assert pickle.loads(pickle.dumps(codec)) == codec  # noqa: S301 (our own bytes)


UNIT = np.eye(DIM, dtype=np.float32)
BAD = {
    "a vector too few": (FixedVectors(DIM), UNIT[:2], r"shape \(2, 3\), not \(3, 3\)"),
    "other dimensions": (FixedVectors(DIM), np.eye(3, 4, dtype=np.float32), r"shape \(3, 4\)"),
    "NaN": (FixedVectors(DIM), np.where(UNIT == 1, np.nan, 0), "NaN or infinity.*the first is row 0"),
    "entries above float16": (FixedVectors(DIM, unit_norm=False), UNIT * 1e6, "entries that float16 cannot hold"),
    "norm 2": (FixedVectors(DIM), UNIT * 2, "not of unit norm; the first is row 0 of its unit with norm 2"),
    "a row without token vectors": (RaggedVectors(DIM), [UNIT, UNIT[:0], UNIT], r"row 1 .*shape \(0, 3\)"),
    "token vectors of other dimensions": (RaggedVectors(DIM), [UNIT, UNIT, UNIT[:, :2]], r"row 2 .*shape \(3, 2\)"),
    "a token vector of norm 2": (RaggedVectors(DIM), [UNIT, UNIT, UNIT * 2], "the first is row 2 of its unit"),
    "a row too few": (RaggedVectors(DIM), [UNIT, UNIT], "got 2 values for 3 rows"),
    "infinite scores": (Scalars(), np.array([0, np.inf, 1]), "1 numbers are NaN or infinity, the first is row 1"),
    "scores above float32": (Scalars(), np.array([0, 1, 1e300]), "the first is row 2"),
    "a column of scores": (Scalars(), np.zeros((3, 1)), r"shape \(3, 1\), not \(3,\)"),
    "text instead of bytes": (Binary(), [b"a", "b", b"c"], "row 1 of its unit is of type str"),
    "bytes too few": (Binary(), [b"a"], "got 1 values for 3 rows"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_values_are_refused(case: str):
    codec, values, message = BAD[case]
    with pytest.raises(VectorError, match=f"table: .*{message}"):
        codec.check(values, 3, "table")


def test_types_are_described_in_words():
    assert describe_type(FixedVectors(4).arrow_type) == "vectors of 4 dimensions"
    assert describe_type(RaggedVectors(4).arrow_type) == "lists of vectors of 4 dimensions"
    assert describe_type(Scalars().arrow_type) == "values of type float"
